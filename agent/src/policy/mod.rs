//! Who may have what: rules match what the kernel says of a peer, and grant patterns of environment names.
//!
//! No rule, no secret. Rules only add to each other. A name that steers loaders, shells or interpreters
//! ([`is_guarded`]) is granted only by a rule that names it exactly.

mod config;
mod glob;
mod guarded;

pub use config::{Principal, Problem, RuleConfig, RuleMistake};
pub use glob::{Glob, InvalidGlob};
pub use guarded::is_guarded;

use crate::peer::Peer;

/// All rules.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    rules: Vec<Rule>,
}

/// One rule, checked.
#[derive(Debug, Clone)]
pub struct Rule {
    name: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
    allow: Vec<Glob>,
}

/// What the rules grant one peer.
#[derive(Debug, Clone, Copy)]
pub struct Grants<'a> {
    policy: &'a Policy,
    peer: Peer,
}

impl Policy {
    /// What holds without a configuration: `uid` may have every variable (but no guarded one).
    #[must_use]
    pub fn own_uid_only(uid: u32) -> Self {
        let everything = Glob::new("*").into_iter().collect();
        Self { rules: vec![Rule { name: None, uid: Some(uid), gid: None, allow: everything }] }
    }

    /// The rules, for `check` and `status`.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What `peer` may have; none where no rule is about it.
    #[must_use]
    pub fn grants(&self, peer: Peer) -> Option<Grants<'_>> {
        self.rules.iter().any(|rule| rule.is_about(peer)).then_some(Grants { policy: self, peer })
    }
}

impl Rule {
    /// What messages call the rule.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The user that it grants to; none for any.
    #[must_use]
    pub fn uid(&self) -> Option<u32> {
        self.uid
    }

    /// The primary group that it grants to; none for any.
    #[must_use]
    pub fn gid(&self) -> Option<u32> {
        self.gid
    }

    /// The patterns that it grants.
    #[must_use]
    pub fn allow(&self) -> &[Glob] {
        &self.allow
    }

    fn is_about(&self, peer: Peer) -> bool {
        self.uid.is_none_or(|uid| uid == peer.uid) && self.gid.is_none_or(|gid| gid == peer.gid)
    }

    fn grants(&self, name: &[u8], guarded: bool) -> bool {
        self.allow.iter().any(|glob| if guarded { glob.is_exactly(name) } else { glob.matches(name) })
    }
}

impl Grants<'_> {
    /// Whether a variable of this name may be injected.
    #[must_use]
    pub fn allows(&self, name: &[u8]) -> bool {
        let guarded = is_guarded(name);
        self.rules().any(|rule| rule.grants(name, guarded))
    }

    /// Whether every name but the guarded ones is granted.
    #[must_use]
    pub fn everything(&self) -> bool {
        self.rules().any(|rule| rule.allow.iter().any(Glob::is_everything))
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.policy.rules.iter().filter(|rule| rule.is_about(self.peer))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(uid: u32, gid: u32) -> Peer {
        Peer { uid, gid, pid: 1 }
    }

    fn rule(uid: Option<u32>, gid: Option<u32>, allow: &[&str]) -> Rule {
        let allow = allow.iter().map(|text| Glob::new(text).unwrap()).collect();
        Rule { name: None, uid, gid, allow }
    }

    fn allows(policy: &Policy, peer: Peer, name: &str) -> bool {
        policy.grants(peer).is_some_and(|grants| grants.allows(name.as_bytes()))
    }

    #[test]
    fn without_rules_nobody_has_anything() {
        assert!(Policy::default().grants(peer(0, 0)).is_none());
    }

    #[test]
    fn by_default_only_the_own_uid_has_everything() {
        let policy = Policy::own_uid_only(1000);
        assert!(policy.grants(peer(1000, 5)).unwrap().everything());
        assert!(allows(&policy, peer(1000, 5), "API_KEY"));
        assert!(policy.grants(peer(0, 0)).is_none());
    }

    #[test]
    fn uid_and_gid_of_one_rule_must_both_hold_and_rules_add_up() {
        let policy = Policy { rules: vec![rule(Some(1), Some(2), &["A"]), rule(Some(1), None, &["B_*"])] };
        assert!(allows(&policy, peer(1, 2), "A") && allows(&policy, peer(1, 2), "B_X"));
        assert!(!allows(&policy, peer(1, 3), "A") && allows(&policy, peer(1, 3), "B_X"));
        assert!(!allows(&policy, peer(2, 2), "A"));
    }

    #[test]
    fn guarded_names_are_granted_by_their_exact_name_only() {
        let globs = Policy { rules: vec![rule(None, None, &["*", "LD_*", "PAT?"])] };
        let exact = Policy { rules: vec![rule(None, None, &["PATH", "LD_PRELOAD"])] };
        for name in ["PATH", "LD_PRELOAD"] {
            assert!(!allows(&globs, peer(1, 1), name), "{name}");
            assert!(allows(&exact, peer(1, 1), name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_granted_without_a_rule_about_the_peer_that_matches_the_name(
            rules in proptest::collection::vec(
                (proptest::option::of(0u32..3), proptest::option::of(0u32..3), "[AB*?]{1,4}"), 0..4),
            uid in 0u32..3, gid in 0u32..3, name in "[AB]{1,4}",
        ) {
            let about = |of: &Option<u32>, id| of.is_none_or(|wanted| wanted == id);
            let granted = rules.iter().any(|(u, g, glob)| {
                about(u, uid) && about(g, gid) && Glob::new(glob).unwrap().matches(name.as_bytes())
            });
            let policy = Policy { rules: rules.iter().map(|(u, g, glob)| rule(*u, *g, &[glob])).collect() };
            prop_assert_eq!(allows(&policy, peer(uid, gid), &name), granted);
        }
    }
}
