"""Reports: report.json for programs, and one self-contained report.html that opens with the network off."""
