//! A verdict is a list of named checks, each with what it proves and who is at fault where it fails.

use serde::Serialize;

/// Who would have to have done wrong for a check to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// Whoever served the chain's data.
    Chain,
    /// The worker, or its machine.
    Worker,
    /// The platform vendor's collateral, or who fetched it.
    Collateral,
    /// The client.
    Client,
    /// The contracts of the network.
    Contracts,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable, `snake_case`.
    pub name: &'static str,
    /// Whether it held. A check that could not be made did not hold.
    pub passed: bool,
    /// What it shows when it holds.
    pub proves: &'static str,
    /// What was found; never a prompt, an answer or a key.
    pub detail: String,
    /// Who is at fault when it fails.
    pub party_at_fault: Party,
}

/// The checks that were made, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The checks.
    pub checks: Vec<Check>,
}

impl Verdict {
    /// Whether there were checks and every one held.
    pub fn all_passed(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.passed)
    }

    /// `name: detail` of each check that failed.
    pub fn failures(&self) -> Vec<String> {
        let failed = self.checks.iter().filter(|check| !check.passed);
        failed.map(|check| format!("{}: {}", check.name, check.detail)).collect()
    }

    pub(crate) fn add(
        &mut self,
        name: &'static str,
        proves: &'static str,
        party_at_fault: Party,
        finding: Result<String, String>,
    ) {
        let (passed, detail) = match finding {
            Ok(detail) => (true, detail),
            Err(detail) => (false, detail),
        };
        self.checks.push(Check { name, passed, proves, detail, party_at_fault });
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.checks.extend(other.checks);
    }
}

/// `Ok` with `found` where `holds`, else `Err` with `otherwise`.
pub(crate) fn holds(
    holds: bool,
    found: impl Into<String>,
    otherwise: impl Into<String>,
) -> Result<String, String> {
    if holds { Ok(found.into()) } else { Err(otherwise.into()) }
}
