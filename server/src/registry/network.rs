//! The unit that budgets and limits by address count.

use std::net::{IpAddr, Ipv6Addr};

/// An IPv4 address, which may arrive mapped into IPv6, or an IPv6 /64: the least that one customer
/// gets (RFC 6177), all of which one host may use.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_and_a_network_of_ipv6_are_each_one_address() {
        let counted = |text: &str| network(text.parse().unwrap());
        assert_eq!(counted("::ffff:192.0.2.1"), counted("192.0.2.1"));
        assert_eq!(counted("2001:db8:1:2:3::4"), counted("2001:db8:1:2:ffff::"));
        assert_ne!(counted("2001:db8:1:2::"), counted("2001:db8:1:3::"));
    }
}
