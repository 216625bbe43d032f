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

#[derive(Debug)]
struct Uid(u32);

#[derive(Debug)]
struct Gid(u32);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    Id(u32),
    /// Its name, as the machine's user database has it.
    Name(String),
}

#[derive(Debug, Error)]
enum InvalidPrincipal {
    #[error("names the user {0:?}, which this machine does not have: create it, or give its number")]
    User(String),
    #[error("names the group {0:?}, which this machine does not have: create it, or give its number")]
    Group(String),
    #[error("names {0:?}, and the user database cannot be read: give the number instead")]
    Database(String, #[source] nix::Error),
    #[error(
        "names the {kind} {id}, by which this user namespace shows every {kind} that it does not map (/proc/self/uid_map): it \
         identifies nobody; map the {kind}, or run the daemon outside the namespace"
    )]
    Anonymous { kind: &'static str, id: u32 },
}

pub(super) fn uid(rule: &RuleConfig) -> Option<Result<Condition, InvalidCondition>> {
    let uid = rule.uid.as_ref()?.look_up(user).and_then(known_user);
    Some(uid.map(|uid| Arc::new(Uid(uid)) as Condition).map_err(Into::into))
}

pub(super) fn gid(rule: &RuleConfig) -> Option<Result<Condition, InvalidCondition>> {
    let gid = rule.gid.as_ref()?.look_up(group).and_then(known_group);
    Some(gid.map(|gid| Arc::new(Gid(gid)) as Condition).map_err(Into::into))
}

/// The condition that `uid` sets, for the rule that is built in.
pub(in crate::access::policy) fn exactly_uid(uid: u32) -> Condition {
    Arc::new(Uid(uid))
}

impl Matcher for Uid {
    fn is_met_by_ids(&self, peer: Peer) -> Option<bool> {
        Some(peer.uid == self.0)
    }

    fn ask(&self, _: &mut Questions) {}

    fn mismatch<'a>(&'a self, facts: &'a Facts) -> Option<Mismatch<'a>> {
        let found = Found::Value(&facts.peer.uid);
        (facts.peer.uid != self.0).then_some(Mismatch { fact: "uid", wanted: &self.0, found })
    }
}

impl Matcher for Gid {
    fn is_met_by_ids(&self, peer: Peer) -> Option<bool> {
        Some(peer.gid == self.0)
    }

    fn ask(&self, _: &mut Questions) {}

    fn mismatch<'a>(&'a self, facts: &'a Facts) -> Option<Mismatch<'a>> {
        let found = Found::Value(&facts.peer.gid);
        (facts.peer.gid != self.0).then_some(Mismatch { fact: "gid", wanted: &self.0, found })
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}", self.0)
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gid {}", self.0)
    }
}

impl Principal {
    fn look_up(&self, by_name: fn(&str) -> Result<u32, InvalidPrincipal>) -> Result<u32, InvalidPrincipal> {
        match self {
            Self::Id(id) => Ok(*id),
            Self::Name(name) => by_name(name),
        }
    }
}

fn known_user(id: u32) -> Result<u32, InvalidPrincipal> {
    if is_anonymous_user(id) { Err(InvalidPrincipal::Anonymous { kind: "user", id }) } else { Ok(id) }
}

fn known_group(id: u32) -> Result<u32, InvalidPrincipal> {
    if is_anonymous_group(id) { Err(InvalidPrincipal::Anonymous { kind: "group", id }) } else { Ok(id) }
}

fn user(name: &str) -> Result<u32, InvalidPrincipal> {
    let found = User::from_name(name).map_err(|error| InvalidPrincipal::Database(name.to_owned(), error))?;
    found.map(|user| user.uid.as_raw()).ok_or_else(|| InvalidPrincipal::User(name.to_owned()))
}

fn group(name: &str) -> Result<u32, InvalidPrincipal> {
    let found = Group::from_name(name).map_err(|error| InvalidPrincipal::Database(name.to_owned(), error))?;
    found.map(|group| group.gid.as_raw()).ok_or_else(|| InvalidPrincipal::Group(name.to_owned()))
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
