//! A system call, and the conditions on its arguments.

use std::collections::BTreeMap;

use seccompiler::{BackendError, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

/// System calls by number. With an empty list any arguments are allowed; else one rule has to
/// match.
pub(super) type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// A condition on one argument. The kernel reads all of these as 32 bits and ignores the rest of
/// the register.
#[derive(Debug, Clone, Copy)]
pub(super) enum Argument {
    Is(u8, u32),
    Has(u8, u32, u32),
    /// Argument number of a pointer that is null.
    IsNull(u8),
}

/// A call, and the lists of conditions of which one has to hold as a whole.
pub(super) type Case = (i64, &'static [&'static [Argument]]);

pub(super) fn rules(cases: &[Case]) -> Result<Rules, BackendError> {
    let compile = |(call, lists): &Case| {
        let rules: Result<Vec<_>, _> = lists.iter().map(|list| rule(list)).collect();
        Ok((*call, rules?))
    };
    cases.iter().map(compile).collect()
}

pub(super) fn rule(arguments: &[Argument]) -> Result<SeccompRule, BackendError> {
    let conditions: Result<Vec<_>, _> = arguments.iter().map(|argument| argument.condition()).collect();
    SeccompRule::new(conditions?)
}

impl Argument {
    fn condition(self) -> Result<SeccompCondition, BackendError> {
        let (number, length, operator, value) = match self {
            Self::Is(number, value) => (number, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value),
            Self::Has(number, mask, value) => {
                (number, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask.into()), value)
            }
            Self::IsNull(number) => (number, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0),
        };
        SeccompCondition::new(number, length, operator, value.into())
    }
}
