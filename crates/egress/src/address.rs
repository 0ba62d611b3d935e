//! Which addresses may be called.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::EgressConfig;

/// Ranges of IPv4 that are not the public internet (IANA's special-purpose registry, and multicast and reserved space).
const SPECIAL_V4: [(Ipv4Addr, u8); 15] = [
    (Ipv4Addr::UNSPECIFIED, 8),           // "this network"
    (Ipv4Addr::new(10, 0, 0, 0), 8),      // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),   // carrier-grade NAT
    (Ipv4Addr::new(127, 0, 0, 0), 8),     // loopback
    (Ipv4Addr::new(169, 254, 0, 0), 16),  // link-local
    (Ipv4Addr::new(172, 16, 0, 0), 12),   // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),    // protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24),    // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24),  // 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16),  // private
    (Ipv4Addr::new(198, 18, 0, 0), 15),   // benchmarks
    (Ipv4Addr::new(198, 51, 100, 0), 24), // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),  // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),     // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),     // reserved, broadcast
];

/// The only part of IPv6 that is the public internet: all else (loopback, mapped and compatible IPv4, NAT64, unique local,
/// link-local, multicast) lies outside.
const GLOBAL_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Ranges within it that are not: they stand for something else, or carry an IPv4 address.
const SPECIAL_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments: Teredo, benchmarks, ORCHID
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

/// Where clouds hand credentials to whoever asks from within. Refused even where a CIDR allows the range around it.
const METADATA: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), // AWS, Azure, Google
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),   // AWS ECS
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),   // Azure, in public space
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), // Alibaba
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),     // Oracle
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)), // AWS
];

/// Judges addresses; the judged address is the one that is connected to, so no name can be bound anew in between.
#[derive(Clone, Debug, Default)]
pub struct AddressPolicy {
    allowed: Vec<IpNet>,
    loopback: bool,
}

impl AddressPolicy {
    /// The configured policy.
    pub fn new(config: &EgressConfig) -> Self {
        Self {
            allowed: config.allowed_cidrs.clone(),
            loopback: config.allow_loopback_http,
        }
    }

    /// Whether `address` may be called by https.
    pub fn permits(&self, address: IpAddr) -> bool {
        if METADATA.contains(&address) {
            return false;
        }
        is_public(address)
            || self.permits_plain(address)
            || self.allowed.iter().any(|net| net.contains(&address))
    }

    /// Whether `address` may be called by plain http too.
    pub fn permits_plain(&self, address: IpAddr) -> bool {
        self.loopback && address.is_loopback()
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !SPECIAL_V4.iter().any(|range| within_v4(*range, address)),
        IpAddr::V6(address) => {
            within_v6(GLOBAL_V6, address)
                && !SPECIAL_V6.iter().any(|range| within_v6(*range, address))
        }
    }
}

fn within_v4((network, prefix): (Ipv4Addr, u8), address: Ipv4Addr) -> bool {
    Ipv4Net::new_assert(network, prefix).contains(&address)
}

fn within_v6((network, prefix): (Ipv6Addr, u8), address: Ipv6Addr) -> bool {
    Ipv6Net::new_assert(network, prefix).contains(&address)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address in the test's table")
    }

    const REFUSED: [&str; 46] = [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.0.1",
        "169.254.169.254",
        "169.254.170.2",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "64:ff9b:1::a00:1",
        "100::1",
        "2001::1",
        "2001:2::1",
        "2001:db8::1",
        "2002:a00:1::1",
        "3fff::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ];

    const PERMITTED: [&str; 10] = [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.1",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450:4001::1",
    ];

    #[test]
    fn special_ranges_are_refused_and_public_ones_are_not() {
        let policy = AddressPolicy::default();
        for address in REFUSED {
            assert!(!policy.permits(ip(address)), "{address} must be refused");
            assert!(
                !policy.permits_plain(ip(address)),
                "{address} must be refused by http"
            );
        }
        for address in PERMITTED {
            assert!(policy.permits(ip(address)), "{address} must be permitted");
            assert!(!policy.permits_plain(ip(address)), "{address} by http");
        }
    }

    #[test]
    fn a_cidr_opens_its_range_by_https_and_no_metadata_address() {
        let policy = AddressPolicy {
            allowed: vec![
                "10.1.0.0/16".parse().expect("cidr"),
                "169.254.0.0/16".parse().expect("cidr"),
            ],
            loopback: false,
        };
        assert!(policy.permits(ip("10.1.2.3")));
        assert!(!policy.permits_plain(ip("10.1.2.3")));
        assert!(!policy.permits(ip("10.2.0.1")));
        assert!(!policy.permits(ip("::ffff:10.1.2.3")));
        assert!(policy.permits(ip("169.254.7.7")));
        assert!(!policy.permits(ip("169.254.169.254")));
    }

    #[test]
    fn development_opens_loopback_alone() {
        let policy = AddressPolicy {
            allowed: Vec::new(),
            loopback: true,
        };
        for address in ["127.0.0.1", "127.8.9.1", "::1"] {
            assert!(
                policy.permits(ip(address)) && policy.permits_plain(ip(address)),
                "{address}"
            );
        }
        for address in ["10.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "::"] {
            assert!(
                !policy.permits(ip(address)) && !policy.permits_plain(ip(address)),
                "{address}"
            );
        }
    }

    proptest! {
        /// The standard library's own notions are an oracle for part of the table.
        #[test]
        fn nothing_the_standard_library_calls_private_is_permitted(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            let special = address.is_private() || address.is_loopback() || address.is_link_local()
                || address.is_multicast() || address.is_broadcast() || address.is_documentation()
                || address.is_unspecified();
            let policy = AddressPolicy::default();
            prop_assert!(!(special && policy.permits(address.into())));
            prop_assert!(!policy.permits(address.to_ipv6_mapped().into()));
            prop_assert!(!policy.permits(address.to_ipv6_compatible().into()));
        }
    }
}
