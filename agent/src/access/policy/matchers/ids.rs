//! `uid` and `gid`: the user and the primary group of a process.

use std::fmt;
use std::sync::Arc;

use nix::unistd::{Group, User};
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use super::{Condition, InvalidCondition, Matcher};
use crate::access::peer::{Facts, Peer, Questions, is_anonymous_group, is_anonymous_user};
use crate::access::policy::RuleConfig;
use crate::access::policy::mismatch::{Found, Mismatch};

#[derive(Debug, Clone, Copy)]
enum Kind {
    User,
    Group,
}

#[derive(Debug)]
struct Id {
    kind: Kind,
    wanted: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    Id(u32),
    /// Its name, as the machine's user database has it.
    Name(String),
}

#[derive(Debug, Error)]
enum InvalidPrincipal {
    #[error("names the {kind} {name:?}, which this machine does not have: create it, or give its number")]
    Unknown { kind: &'static str, name: String },
    #[error("names {0:?}, and the user database cannot be read: give the number instead")]
    Database(String, #[source] nix::Error),
    #[error(
        "names the {kind} {id}, by which this user namespace shows every {kind} that it does not map (/proc/self/uid_map): it \
         identifies nobody; map the {kind}, or run the daemon outside the namespace"
    )]
    Anonymous { kind: &'static str, id: u32 },
}

pub(super) fn uid(rule: &RuleConfig) -> Option<Result<Condition, InvalidCondition>> {
    Some(Kind::User.condition(rule.uid.as_ref()?).map_err(Into::into))
}

pub(super) fn gid(rule: &RuleConfig) -> Option<Result<Condition, InvalidCondition>> {
    Some(Kind::Group.condition(rule.gid.as_ref()?).map_err(Into::into))
}

/// The condition that `uid` sets, for the rule that is built in.
pub(in crate::access::policy) fn exactly_uid(uid: u32) -> Condition {
    Arc::new(Id { kind: Kind::User, wanted: uid })
}

impl Kind {
    fn condition(self, principal: &Principal) -> Result<Condition, InvalidPrincipal> {
        let id = match principal {
            Principal::Id(id) => *id,
            Principal::Name(name) => self.look_up(name)?,
        };
        let (kind, is_anonymous) = match self {
            Self::User => ("user", is_anonymous_user(id)),
            Self::Group => ("group", is_anonymous_group(id)),
        };
        if is_anonymous {
            return Err(InvalidPrincipal::Anonymous { kind, id });
        }
        Ok(Arc::new(Id { kind: self, wanted: id }))
    }

    fn look_up(self, name: &str) -> Result<u32, InvalidPrincipal> {
        let (kind, found) = match self {
            Self::User => ("user", User::from_name(name).map(|user| user.map(|user| user.uid.as_raw()))),
            Self::Group => {
                ("group", Group::from_name(name).map(|group| group.map(|group| group.gid.as_raw())))
            }
        };
        let found = found.map_err(|error| InvalidPrincipal::Database(name.to_owned(), error))?;
        found.ok_or_else(|| InvalidPrincipal::Unknown { kind, name: name.to_owned() })
    }

    const fn fact(self) -> &'static str {
        match self {
            Self::User => "uid",
            Self::Group => "gid",
        }
    }
}

impl Id {
    fn of<'a>(&self, peer: &'a Peer) -> &'a u32 {
        match self.kind {
            Kind::User => &peer.uid,
            Kind::Group => &peer.gid,
        }
    }
}

impl Matcher for Id {
    fn is_met_by_ids(&self, peer: Peer) -> Option<bool> {
        Some(*self.of(&peer) == self.wanted)
    }

    fn ask(&self, _: &mut Questions) {}

    fn mismatch<'a>(&'a self, facts: &'a Facts) -> Option<Mismatch<'a>> {
        let id = self.of(&facts.peer);
        let found = Found::Value(id);
        (*id != self.wanted).then_some(Mismatch { fact: self.kind.fact(), wanted: &self.wanted, found })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.fact(), self.wanted)
    }
}

impl<'de> Deserialize<'de> for Principal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrName;

        impl Visitor<'_> for NumberOrName {
            type Value = Principal;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a name")
            }

            fn visit_i64<E: serde::de::Error>(self, id: i64) -> Result<Principal, E> {
                let fits = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
                fits.map(Principal::Id).ok_or_else(|| E::custom("an id is a number from 0 to 4294967294"))
            }

            fn visit_u64<E: serde::de::Error>(self, id: u64) -> Result<Principal, E> {
                self.visit_i64(i64::try_from(id).unwrap_or(i64::MAX))
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Principal, E> {
                if name.is_empty() || name.contains('\0') {
                    return Err(E::custom("a user's or group's name is not empty and has no NUL"));
                }
                Ok(Principal::Name(name.to_owned()))
            }
        }

        deserializer.deserialize_any(NumberOrName).map_err(D::Error::custom)
    }
}
