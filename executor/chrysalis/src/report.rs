//! What the demo says at the end: one object for programs, tables for people.

use std::fmt::Write as _;

use chain::AccountTx;
use contracts::opcodes;
use contracts::wire::opcode_of;
use serde::Serialize;

/// Everything the demo measured and checked. `--json` prints it as it is.
#[derive(Debug, Serialize)]
pub(crate) struct DemoReport {
    /// Says that the chain and the TDX platform are simulated.
    pub(crate) simulated: &'static str,
    /// What the model was asked.
    pub(crate) prompt: String,
    /// What it answered, as the client decrypted it.
    pub(crate) answer: String,
    /// Merkle root of the model's files, hexadecimal.
    pub(crate) model_id: String,
    /// The job's address.
    pub(crate) job: String,
    /// How the job ended.
    pub(crate) state: String,
    /// The receipt that was paid.
    pub(crate) receipt: ReceiptReport,
    /// Every check of the audit.
    pub(crate) checks: Vec<CheckReport>,
    /// How the worker's keys were attested.
    pub(crate) registration: RegistrationReport,
    /// Balances of the parties before the job and after it.
    pub(crate) balances: Vec<BalanceReport>,
    /// Genesis supply less every account's balance and the fees collected: zero, or money was lost or made.
    pub(crate) unaccounted_nanoton: i128,
    /// The transactions of the job's path, in order of logical time.
    pub(crate) transactions: Vec<TransactionReport>,
    /// Where the time went.
    pub(crate) timings_ms: Vec<TimingReport>,
}

/// The receipt in words and numbers.
#[derive(Debug, Serialize)]
pub(crate) struct ReceiptReport {
    /// Hash of the receipt's cell, which the worker's attested key signed.
    pub(crate) hash: String,
    /// Prompt tokens.
    pub(crate) input_tokens: u32,
    /// Completion tokens.
    pub(crate) output_tokens: u32,
    /// What the client paid.
    pub(crate) paid_nanoton: u128,
    /// Of that, to the publisher.
    pub(crate) royalty_nanoton: u128,
    /// Of that, to the treasury.
    pub(crate) fee_nanoton: u128,
}

/// One check of the audit.
#[derive(Debug, Serialize)]
pub(crate) struct CheckReport {
    /// Stable name.
    pub(crate) name: String,
    /// Whether it held.
    pub(crate) passed: bool,
    /// What it shows when it holds.
    pub(crate) proves: String,
    /// What was found.
    pub(crate) detail: String,
}

/// One party's balance.
#[derive(Debug, Serialize)]
pub(crate) struct BalanceReport {
    /// Who.
    pub(crate) party: &'static str,
    /// Where.
    pub(crate) address: String,
    /// Just before the job was posted.
    pub(crate) before_nanoton: u128,
    /// After every payout.
    pub(crate) after_nanoton: u128,
}

/// The registration of the worker's keys.
#[derive(Debug, Serialize)]
pub(crate) struct RegistrationReport {
    /// The owner's wallet transaction and all that it caused: collateral, stake and offer among it.
    pub(crate) transactions: Vec<TransactionReport>,
    /// What the chain took for the registration alone, from the delivery of `verify_quote` to the excess.
    pub(crate) fees_nanoton: u128,
}

/// One transaction.
#[derive(Debug, Serialize)]
pub(crate) struct TransactionReport {
    /// The contract it ran on.
    pub(crate) contract: &'static str,
    /// The message that started it.
    pub(crate) message: String,
    /// Logical time.
    pub(crate) lt: u64,
    /// Hash of the transaction's cell.
    pub(crate) hash: String,
    /// Gas the compute phase used.
    pub(crate) gas_used: u64,
    /// Fees the chain collected in it.
    pub(crate) fees_nanoton: u128,
    /// Fees for delivering its messages that the chain collects at their arrival.
    pub(crate) forward_fees_nanoton: u128,
    /// Exit code of the compute phase, when it ran.
    pub(crate) exit_code: Option<i32>,
}

impl TransactionReport {
    pub(crate) fn of(contract: &'static str, transaction: &AccountTx) -> anyhow::Result<Self> {
        let result = transaction.result()?;
        let message = match transaction.in_message()? {
            Some(message) => {
                let opcode = message.body.as_slice().ok().and_then(|slice| opcode_of(&slice));
                match opcode.and_then(opcodes::name) {
                    Some(name) => name.to_owned(),
                    None if message.bounced => "bounced".to_owned(),
                    None if message.from.is_none() => "external".to_owned(),
                    None => "transfer".to_owned(),
                }
            }
            None => "none".to_owned(),
        };
        let sent = transaction.out_messages()?;
        Ok(Self {
            contract,
            message,
            lt: transaction.id.lt,
            hash: transaction.id.hash.to_string(),
            gas_used: result.gas_used,
            fees_nanoton: transaction.fees_nanoton(),
            forward_fees_nanoton: sent.iter().map(|sent| sent.forward_fee_nanoton).sum(),
            exit_code: result.exit_code,
        })
    }

    /// What the chain took for it, the delivery of its messages included.
    pub(crate) fn all_fees_nanoton(&self) -> u128 {
        self.fees_nanoton + self.forward_fees_nanoton
    }

    /// A table of transactions with a title.
    pub(crate) fn table(title: &str, transactions: &[Self]) -> String {
        let mut out = String::new();
        let head = ["contract", "message", "gas", "fees, TON", "exit"];
        table(&mut out, title, &head, transactions.iter().map(Self::row));
        out
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.contract.to_owned(),
            self.message.clone(),
            self.gas_used.to_string(),
            ton(self.all_fees_nanoton()),
            self.exit_code.map_or("-".to_owned(), |code| code.to_string()),
        ]
    }
}

/// One phase's time.
#[derive(Debug, Serialize)]
pub(crate) struct TimingReport {
    /// The phase.
    pub(crate) phase: &'static str,
    /// How long it took.
    pub(crate) ms: u64,
}

impl DemoReport {
    /// Whether every check held and every nanoTON is accounted for.
    pub(crate) fn holds(&self) -> bool {
        self.state == "settled"
            && self.unaccounted_nanoton == 0
            && !self.checks.is_empty()
            && self.checks.iter().all(|check| check.passed)
    }

    /// The tables that follow the streamed answer.
    pub(crate) fn tables(&self) -> String {
        let mut out = String::new();
        table(
            &mut out,
            "Checks",
            &["", "check", "proves"],
            self.checks.iter().map(|check| {
                let proves =
                    if check.passed { check.proves.clone() } else { format!("FAILED: {}", check.detail) };
                vec![if check.passed { "ok" } else { "NO" }.to_owned(), check.name.clone(), proves]
            }),
        );
        let registration = &self.registration;
        out.push_str(&TransactionReport::table("Registration of the worker", &registration.transactions));
        let _ = writeln!(out, "  The registration itself cost {} TON.", ton(registration.fees_nanoton));
        out.push_str(&TransactionReport::table("Transactions", &self.transactions));
        table(
            &mut out,
            "Balances, TON",
            &["party", "before", "after", "change"],
            self.balances.iter().map(|balance| {
                vec![
                    balance.party.to_owned(),
                    ton(balance.before_nanoton),
                    ton(balance.after_nanoton),
                    change(balance.before_nanoton, balance.after_nanoton),
                ]
            }),
        );
        table(
            &mut out,
            "Time",
            &["phase", "ms"],
            self.timings_ms.iter().map(|timing| vec![timing.phase.to_owned(), timing.ms.to_string()]),
        );
        let receipt = &self.receipt;
        let _ = writeln!(
            out,
            "\nJob {} is {}. Paid {} TON for {} prompt and {} completion tokens (royalty {}, fee {}).",
            self.job,
            self.state,
            ton(receipt.paid_nanoton),
            receipt.input_tokens,
            receipt.output_tokens,
            ton(receipt.royalty_nanoton),
            ton(receipt.fee_nanoton),
        );
        let _ = writeln!(out, "Unaccounted: {} nanoTON. {}", self.unaccounted_nanoton, self.simulated);
        out
    }
}

/// `1500000000` as `1.500000000`.
pub(crate) fn ton(nanoton: u128) -> String {
    format!("{}.{:09}", nanoton / 1_000_000_000, nanoton % 1_000_000_000)
}

fn change(before: u128, after: u128) -> String {
    if after >= before { format!("+{}", ton(after - before)) } else { format!("-{}", ton(before - after)) }
}

fn table(out: &mut String, title: &str, head: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let rows: Vec<Vec<String>> =
        std::iter::once(head.iter().map(|cell| (*cell).to_owned()).collect()).chain(rows).collect();
    let widths: Vec<usize> = (0..head.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let _ = writeln!(out, "\n{title}");
    for row in rows {
        let line: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "  {}", line.join("  ").trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_as_ton() {
        assert_eq!(ton(1_500_000_000), "1.500000000");
        assert_eq!(ton(1), "0.000000001");
        assert_eq!(change(5, 3), "-0.000000002");
    }
}
