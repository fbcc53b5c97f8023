"""Subject matter of the question-answering grammar: one lexicon per sector; test sectors never occur in training."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sector:
    """Words of one sector. `bad`, `good`, `who`, `data` and `unit` are plural noun phrases; `head` is singular."""

    key: str
    organisations: tuple[str, ...]
    nouns: tuple[str, ...]
    bad: tuple[str, ...]
    good: tuple[str, ...]
    who: tuple[str, ...]
    head: tuple[str, ...]
    action: tuple[str, ...]
    data: tuple[str, ...]
    unit: tuple[str, ...]


def _sector(key: str, **words: str) -> Sector:
    return Sector(key, **{name: tuple(part.strip() for part in text.split("|")) for name, text in words.items()})


TRAIN_SECTORS = (
    _sector(
        "city",
        organisations="{place} City Council|the city of {place}|{place} Town Hall",
        nouns="AI Plan|Smart City Plan|City Data Plan|Digital City Programme",
        bad="queues at service desks|delays in building permits|traffic jams near schools|missed rubbish collections"
        "|lost letters|night bus gaps",
        good="bus timetables|street lamps|public records|online forms|parking services|flood warnings",
        who="residents|small shops|tenants|older citizens|commuters|neighbourhood groups",
        head="a language model|a traffic camera network|a permit robot|a city chat assistant|a sensor map",
        action="sorts incoming letters by topic|counts cars at every crossing|checks forms for missing pages"
        "|answers routine questions at night|warns crews about broken lamps",
        data="permit files|camera images|resident letters|street maps",
        unit="districts|service desks|crossings|public libraries",
    ),
    _sector(
        "centralbank",
        organisations="the Central Bank of {place}|the National Bank of {place}|the {place} Monetary Authority",
        nouns="Digital Coin Pilot|Instant Payment Pilot|Settlement Project|Open Ledger Pilot",
        bad="card fees|settlement delays|cash handling costs|failed transfers|cross-border charges",
        good="instant payments|offline wallets|payment records|currency reserves|consumer safeguards",
        who="merchants|households|commercial banks|migrant workers|market traders",
        head="a digital wallet|a shared ledger|a token system|a clearing engine|an offline payment card",
        action="settles transfers within seconds|stores value without a bank account|works when the network is down"
        "|records every payment once|limits the balance of each user",
        data="payment histories|wallet balances|transfer orders|account numbers",
        unit="commercial banks|market towns|branches|payment terminals",
    ),
    _sector(
        "grid",
        organisations="{place} Grid|{place} Power Networks|the {place} Transmission Company",
        nouns="Flexible Grid Programme|Storage Programme|Smart Meter Rollout|Load Forecast Project",
        bad="evening demand peaks|power cuts|repair times|wasted wind hours|reserve costs",
        good="battery reserves|solar forecasts|line inspections|tariff signals|grid connections",
        who="wind farms|factory owners|rural customers|field crews|energy traders",
        head="a forecasting model|a battery park|a smart meter network|an inspection drone|a control room screen",
        action="predicts demand for every hour|charges when the wind is strong|reports faults to the nearest crew"
        "|shifts heating away from the peak|measures voltage at each pole",
        data="meter readings|weather reports|fault logs|voltage records",
        unit="substations|villages|wind parks|feeder lines",
    ),
    _sector(
        "hospital",
        organisations="{place} General Hospital|{place} University Clinic|the {place} Health Trust",
        nouns="Early Scan Programme|Digital Ward Project|Remote Care Plan|Triage Project",
        bad="waiting times for scans|missed appointments|repeat blood tests|paper charts|ward infections",
        good="remote check-ups|patient records|nurse schedules|early diagnoses|recovery plans",
        who="patients|nurses|family doctors|surgeons|night staff",
        head="an image reader|a bedside sensor|a booking assistant|a risk score|a tablet record",
        action="marks suspicious spots on scans|measures the pulse through the night|reminds people before each visit"
        "|ranks urgent cases first|shares results with the family doctor",
        data="scan images|blood results|patient notes|heart curves",
        unit="wards|clinics|operating rooms|ambulances",
    ),
    _sector(
        "telecom",
        organisations="{place} Telecom|{place} Mobile|the {place} Fibre Company",
        nouns="Rural Fibre Rollout|Open Network Programme|Fast Mobile Rollout|Satellite Link Project",
        bad="dropped calls|dead zones|installation delays|tower energy bills|roaming charges",
        good="upload speeds|indoor signals|fibre connections|emergency calls|network slices",
        who="remote farms|business customers|train passengers|island residents|call centres",
        head="a radio antenna|a fibre backbone|a satellite link|a traffic scheduler|an open radio unit",
        action="covers three valleys at once|sleeps when few people call|reroutes traffic around damaged cables"
        "|gives ambulances the first channel|joins old masts to new exchanges",
        data="call records|signal maps|cable plans|mast logs",
        unit="masts|exchanges|islands|railway stations",
    ),
    _sector(
        "school",
        organisations="the {place} School Board|{place} Open University|{place} College",
        nouns="Learning Platform Project|Tutor Assistant Pilot|Digital Classroom Plan|Skills Programme",
        bad="drop-out rates|marking hours|printing costs|empty course places|late assignments",
        good="reading skills|evening courses|teacher courses|feedback reports|exam courses",
        who="first-year students|teachers|working parents|school heads|adult learners",
        head="a tutoring assistant|a course platform|a reading app|an essay checker|a lesson planner",
        action="gives hints instead of answers|adapts each exercise to the learner|flags pupils who fall behind"
        "|comments on drafts overnight|suggests the next lesson",
        data="exam results|essay drafts|attendance lists|course reviews",
        unit="classrooms|village schools|courses|study centres",
    ),
    _sector(
        "retailbank",
        organisations="{place} Savings Bank|{place} Credit Union|Bank of {place}",
        nouns="Fraud Shield Project|Open Banking Programme|Mobile Loan Pilot|Branch Renewal Plan",
        bad="fraud losses|loan decision times|false alarms|branch costs|chargeback claims",
        good="mobile loans|savings plans|credit checks|advice hours|identity checks",
        who="card holders|first-time buyers|small firms|branch advisers|pensioners",
        head="a fraud detector|a scoring model|a mobile app|an identity service|an advice bot",
        action="stops unusual card payments|reads income from bank statements|explains each refusal in plain words"
        "|compares a photo with a passport|groups spending by purpose",
        data="card payments|loan files|customer photos|income statements",
        unit="branches|cash machines|advice desks|partner shops",
    ),
    _sector(
        "factory",
        organisations="{place} Motors|{place} Steel Works|the {place} Packaging Group",
        nouns="Connected Factory Plan|Robot Line Project|Predictive Repair Programme|Digital Twin Project",
        bad="machine stops|scrap rates|spare part stocks|overtime hours|welding faults",
        good="repair plans|assembly lines|quality checks|shift schedules|supplier links",
        who="line workers|maintenance teams|suppliers|plant managers|apprentices",
        head="a vibration sensor|a digital twin|a welding robot|a stock planner|an inspection camera",
        action="hears worn bearings early|tests changes before the line is rebuilt|rejects parts with tiny cracks"
        "|orders steel when prices fall|lifts heavy frames safely",
        data="sensor logs|part drawings|repair reports|production plans",
        unit="assembly lines|plants|warehouses|test benches",
    ),
    _sector(
        "logistics",
        organisations="{place} Freight|the Port of {place}|{place} Parcel Service",
        nouns="Green Route Programme|Port Call Project|Parcel Robot Pilot|Cold Chain Project",
        bad="empty truck runs|fuel bills|berth waiting times|customs delays|damaged parcels",
        good="delivery windows|container records|route plans|cold stores|customs forms",
        who="truck drivers|exporters|dock workers|online shops|fruit growers",
        head="a route planner|a container tag|a sorting robot|a berth calendar|an electric van",
        action="combines half-empty loads|reports the temperature every minute|reads addresses in four alphabets"
        "|tells ships when to slow down|fills forms before the truck arrives",
        data="delivery notes|customs papers|ship positions|load lists",
        unit="depots|berths|delivery routes|border posts",
    ),
    _sector(
        "startup",
        organisations="{place} Software|{place} Cloud|{place} Analytics",
        nouns="Cloud Move Project|Subscription Plan|Version Control Project|Open Source Programme",
        bad="server bills|release delays|support tickets|security holes|manual tests",
        good="code reviews|release notes|user accounts|data backups|price plans",
        who="developers|paying customers|support agents|investors|freelance designers",
        head="a test pipeline|a container platform|a code assistant|a billing service|a status page",
        action="runs every check before a merge|starts new servers when traffic grows|suggests fixes for known bugs"
        "|charges users by the hour|shows each outage within a minute",
        data="source files|usage logs|bug reports|customer invoices",
        unit="product teams|data centres|applications|offices",
    ),
    _sector(
        "research",
        organisations="the {place} Institute of Technology|{place} Research Centre|the {place} Academy",
        nouns="Quantum Sensor Project|New Materials Programme|Open Lab Plan|Battery Chemistry Project",
        bad="laboratory costs|failed experiments|review delays|helium losses|duplicate studies",
        good="shared instruments|material samples|open data sets|patent filings|field trials",
        who="young scientists|industry partners|laboratory staff|visiting teams|patent lawyers",
        head="a quantum sensor|a robot chemist|a simulation code|a clean room|a shared microscope",
        action="mixes hundreds of samples a day|measures weak magnetic fields|predicts the strength of new alloys"
        "|books instruments for visiting teams|repeats each experiment twice",
        data="lab notebooks|measurement files|sample lists|simulation results",
        unit="laboratories|research groups|instruments|partner institutes",
    ),
    _sector(
        "farm",
        organisations="the {place} Farmers Union|{place} Dairy|the {place} Irrigation Board",
        nouns="Precision Farming Project|Water Saving Plan|Harvest Data Programme|Crop Insurance Pilot",
        bad="water losses|fertiliser bills|crop failures|late harvests|cattle diseases",
        good="irrigation plans|soil tests|harvest forecasts|milk prices|insurance payouts",
        who="smallholders|dairy farmers|seed sellers|farm advisers|village cooperatives",
        head="a soil probe|a spraying drone|a satellite index|a milking robot|a weather station",
        action="measures moisture at three depths|sprays only the sick plants|pays out when rain fails"
        "|spots ill cows by their walk|opens valves before sunrise",
        data="field maps|rain records|milk samples|harvest reports",
        unit="villages|farms|irrigation canals|milk stations",
    ),
)

TEST_SECTORS = (
    _sector(
        "rail",
        organisations="{place} Railways|the {place} Metro Authority|{place} Tramways",
        nouns="Ticket Reform|Signal Upgrade|Driverless Shuttle Trial|Timetable Initiative",
        bad="late arrivals|ticket machine breakdowns|crowded platforms|brake wear|signal failures",
        good="seat reservations|night services|step-free entrances|travel apps|track inspections",
        who="season ticket owners|wheelchair users|station managers|tourists|freight shippers",
        head="a platform camera|a ticketless gate|a train scheduler|a rail scanner|a crowd counter",
        action="spreads travellers along the platform|debits the fare at the exit|spots cracks in moving wheels"
        "|holds connections for delayed trains|adds carriages before football matches",
        data="gate counts|wheel measurements|driver rosters|fare tables",
        unit="metro stops|tram depots|locomotives|level crossings",
    ),
    _sector(
        "tax",
        organisations="the {place} Revenue Office|the {place} Statistics Bureau|the {place} Ministry of Finance",
        nouns="Paperless Tax Initiative|Open Budget Initiative|Invoice Reform|Registry Overhaul",
        bad="unpaid duties|filing errors|audit backlogs|refund disputes|shadow sales",
        good="pre-filled returns|public dashboards|company registers|audit trails|price statistics",
        who="taxpayers|accountants|auditors|street vendors|newly founded companies",
        head="an invoice matcher|an anomaly filter|a public dashboard|a registry bot|a declaration wizard",
        action="pairs each sale with a purchase|estimates inflation from shop prices|fills returns from payroll records"
        "|publishes spending by department|picks suspicious claims for review",
        data="payroll records|sales invoices|census tables|company filings",
        unit="tax offices|provinces|ministries|customs houses",
    ),
    _sector(
        "insurance",
        organisations="{place} Mutual Insurance|{place} Life|the {place} Pension Fund",
        nouns="Claims Robot Trial|Climate Cover Initiative|Paperless Policy Reform|Pension Dashboard",
        bad="claim backlogs|staged accidents|storm losses|policy lapses|call waiting times",
        good="photo claims|pension forecasts|repair networks|hail warnings|retirement guides",
        who="policy holders|garage owners|claims handlers|retired teachers|home owners",
        head="a damage estimator|a storm simulator|a pension calculator|a voice agent|a claims robot",
        action="prices dents from three photos|approves simple claims in minutes|shows income at every retirement age"
        "|recommends the closest garage|checks roofs from the air",
        data="accident photos|roof surveys|contribution records|policy documents",
        unit="claims centres|partner garages|regional agencies|pension plans",
    ),
    _sector(
        "water",
        organisations="{place} Waterworks|the {place} River Agency|{place} Recycling",
        nouns="Leak Hunt Initiative|Clean River Trial|Waste Sorting Reform|Heat Recovery Trial",
        bad="pipe leaks|sewage overflows|pumping bills|landfill volumes|algae blooms",
        good="drinking water tests|recycled plastics|river sensors|deposit refunds|heat exchangers",
        who="allotment gardeners|plumbers|bottling plants|swimmers|waste collectors",
        head="an acoustic logger|a sorting arm|a river buoy|a pump controller|a leak locator",
        action="listens to pipes after midnight|separates bottles by colour|closes beaches after heavy storms"
        "|runs pumps when electricity is cheap|pulls warmth out of sewers",
        data="pressure curves|sound recordings|water samples|collection rounds",
        unit="pumping stations|recycling yards|reservoirs|river gauges",
    ),
)
