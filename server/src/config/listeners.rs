//! How much of a listener one address, certificate or account may use. The keys stand in `[api]`
//! and `[devbox]`; a reload takes them up.

use std::net::IpAddr;

use devbox_secrets_common::config::Section;

/// The budgets of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Connections in all.
    pub connections: usize,
    /// Connections from one address; an IPv6 /64 is one address.
    pub connections_per_address: usize,
    /// Connections with one devbox certificate.
    pub connections_per_certificate: usize,
    /// Failed authentications a second from one address; ten times as many at once.
    pub failures_per_second: u32,
    /// Requests in work at once; held bundle requests do not count.
    pub requests: usize,
    /// Requests in work at once of one account.
    pub requests_per_account: usize,
    /// Bytes of request bodies in memory.
    pub body_bytes: usize,
    /// Addresses that many callers share, such as a proxy's: no budget is counted by them.
    pub exempt: Exempt,
}

/// Addresses without a budget of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exempt {
    /// Every loopback address.
    pub loopback: bool,
    /// Single addresses.
    pub addresses: Vec<IpAddr>,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            connections: 8_192,
            connections_per_address: 512,
            connections_per_certificate: 8,
            failures_per_second: 10,
            requests: 1_024,
            requests_per_account: 128,
            body_bytes: 256 * 1024 * 1024,
            exempt: Exempt { loopback: true, addresses: Vec::new() },
        }
    }
}

impl Exempt {
    /// Whether callers from `address` have no budget by address.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        (self.loopback && address.is_loopback()) || self.addresses.contains(&address)
    }
}

/// The keys that both listeners have.
fn common(section: &mut Section<'_, '_>) -> ListenerLimits {
    let default = ListenerLimits::default();
    ListenerLimits {
        connections: section.number("max_connections", default.connections),
        connections_per_address: section
            .number("max_connections_per_address", default.connections_per_address),
        requests: section.number("max_requests", default.requests),
        body_bytes: section.number("max_body_bytes", default.body_bytes),
        failures_per_second: section
            .number("max_failures_per_second_per_address", default.failures_per_second),
        exempt: exempt(section).unwrap_or(default.exempt),
        ..default
    }
}

/// The budgets of `[api]`.
pub(super) fn api(section: &mut Section<'_, '_>) -> ListenerLimits {
    let limits = common(section);
    let requests_per_account = section.number("max_requests_per_account", limits.requests_per_account);
    ListenerLimits { requests_per_account, ..limits }
}

/// The budgets of `[devbox]`.
pub(super) fn devbox(section: &mut Section<'_, '_>) -> ListenerLimits {
    let limits = common(section);
    let connections_per_certificate =
        section.number("max_connections_per_certificate", limits.connections_per_certificate);
    ListenerLimits { connections_per_certificate, ..limits }
}

enum Entry {
    Loopback,
    Address(IpAddr),
}

fn exempt(section: &mut Section<'_, '_>) -> Option<Exempt> {
    let entries = section.list("exempt_addresses", |text| match text {
        "loopback" => Ok(Entry::Loopback),
        address => address
            .parse()
            .map(|address: IpAddr| Entry::Address(address.to_canonical()))
            .map_err(|_| "write IP addresses, without a port, or \"loopback\""),
    })?;
    let mut exempt = Exempt { loopback: false, addresses: Vec::new() };
    for entry in entries {
        match entry {
            Entry::Loopback => exempt.loopback = true,
            Entry::Address(address) => exempt.addresses.push(address),
        }
    }
    Some(exempt)
}
