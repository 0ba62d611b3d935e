//! Words that made-up records are put together from.

pub(crate) const STREETS: &[&str] = &[
    "Harbour Road",
    "Mill Lane",
    "Station Street",
    "Kiln Way",
    "Quarry Hill",
    "Ferry Quay",
];

/// City, state, postal code, county.
pub(crate) const CITIES: &[(&str, &str, &str, &str)] = &[
    ("Carpinteria", "CA", "93013", "Santa Barbara"),
    ("Austin", "TX", "78701", "Travis"),
    ("Portland", "OR", "97201", "Multnomah"),
    ("Tampa", "FL", "33602", "Hillsborough"),
    ("Denver", "CO", "80202", "Denver"),
];

pub(crate) const BUILDINGS: &[&str] = &[
    "Library",
    "Clinic",
    "Warehouse",
    "Bridge",
    "School",
    "Data Centre",
    "Town Hall",
    "Pumping Station",
];

pub(crate) const STAGES: &[&str] = &[
    "Bidding",
    "Pre-Construction",
    "Course of Construction",
    "Warranty",
];

pub(crate) const PEOPLE: &[(&str, &str)] = &[
    ("Dana Whitfield", "dana.whitfield@example.net"),
    ("Emeka Nwosu", "emeka.nwosu@example.net"),
    ("Freja Holm", "freja.holm@example.net"),
    ("Giulia Conti", "giulia.conti@example.net"),
    ("Hiro Tanabe", "hiro.tanabe@example.net"),
];

pub(crate) const TOPICS: &[&str] = &[
    "Change order",
    "Site visit",
    "Invoice",
    "Safety report",
    "Drawing revision",
    "Schedule",
    "Meeting notes",
    "Permit",
];
