//! What a client asks, and the one wallet message it becomes. Pure.

use chain::{Transfer, Wallet};
use contracts::job::{JobLimits, PostJob, Seller};
use contracts::money::Amount;
use contracts::sealing::{Input, InputContext, seal_input};
use contracts::work::Request;
use contracts::worker::Offer;
use contracts::{HashBytes, Message, Nanoton, Network, Prices, StdAddr, Units};
use rand_core::CryptoRng;

use crate::error::ClientError;
use crate::reply_key::reply_key;

/// A directed one-shot job.
#[derive(Debug, Clone)]
pub struct JobRequest {
    /// Address of the worker's contract.
    pub worker: StdAddr,
    /// Which model.
    pub model_id: HashBytes,
    /// What is asked; never shown by `Debug`.
    pub work: Request,
    /// The image asked for; zero: any that the worker is attested with.
    pub measurement: HashBytes,
    /// The most the client pays, nanoTON per 1 000 units. The job is posted with what the worker asks.
    pub max_prices: Prices,
    /// The most units a receipt may state.
    pub max_units: Units,
    /// What is escrowed; `None`: what `max_units` cost at the worker's prices.
    pub deposit: Option<Nanoton>,
    /// How long the worker has to claim the job, or to answer it without a claim, seconds.
    pub open_for_s: u32,
    /// How long it has from a claim to the receipt, seconds.
    pub settle_within_s: u32,
}

/// What a job is posted with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobTerms {
    /// Unix time: the last moment of a claim, or of an answer without one.
    pub until: u32,
    /// What the job may pay at most.
    pub deposit: Amount,
    /// The most units, and the least bond of a claim.
    pub limits: JobLimits,
    /// Who serves, and for what.
    pub seller: Seller,
    /// The model, to which the input is bound.
    pub model_id: HashBytes,
}

/// A job ready to be posted.
#[derive(Debug, Clone)]
pub struct SealedJob {
    /// The job's address, which follows from client, nonce and the code of jobs.
    pub address: StdAddr,
    /// The nonce.
    pub nonce: u64,
    /// Its terms.
    pub terms: JobTerms,
    /// The wallet message that deploys and posts it.
    pub transfer: Transfer,
}

/// What a job is built from besides its terms.
#[derive(Clone, Copy)]
pub struct Posting<'a> {
    /// The network.
    pub network: &'a Network,
    /// Whose wallet posts it.
    pub client: &'a StdAddr,
    /// From whose secret the reply key is derived: the client's wallet, or another that keeps the keys of one that signs
    /// elsewhere.
    pub reply_keys: &'a Wallet,
    /// The worker's attested encryption key, verified.
    pub encryption_key: &'a HashBytes,
    /// Makes the job's address unique among the client's.
    pub nonce: u64,
    /// What the message brings: the deposit and the fees of the job's whole life.
    pub value: Nanoton,
}

impl JobRequest {
    /// The terms as of `now_s`, with a worker that holds `receipt_key` and offers the model as `offer` says.
    ///
    /// # Errors
    /// [`ClientError::Request`] for terms nobody can meet.
    pub fn terms(
        &self,
        network: &Network,
        receipt_key: &HashBytes,
        offer: &Offer,
        now_s: u32,
    ) -> Result<JobTerms, ClientError> {
        let is_empty = match &self.work {
            Request::Chat { messages, .. } => messages.is_empty(),
            Request::Completion { prompt, .. } => prompt.is_empty(),
            Request::Embeddings { texts } => texts.is_empty(),
            Request::Transcription { audio, .. } => audio.is_empty(),
        };
        if is_empty {
            return Err(ClientError::Request("there is nothing to answer: the input is empty".into()));
        }
        if let Some(most) = self.work.params().map(|params| params.max_output_tokens)
            && (most == 0 || self.max_units.output < most)
        {
            return Err(ClientError::Request(format!(
                "{most} output tokens do not fit {} output units",
                self.max_units.output
            )));
        }
        if !(1..=MAX_OPEN_FOR_S).contains(&self.open_for_s) {
            return Err(ClientError::Request(
                "the time to claim or answer is not within 1 second and 7 days".into(),
            ));
        }
        if !(MIN_SETTLE_WITHIN_S..=MAX_SETTLE_WITHIN_S).contains(&self.settle_within_s) {
            return Err(ClientError::Request(
                "the time to settle is not within 30 seconds and 7 days".into(),
            ));
        }
        let deposit = self.deposit.unwrap_or_else(|| offer.prices.cost(&self.max_units));
        if deposit.is_zero() {
            return Err(ClientError::Request("a job needs a deposit above zero".into()));
        }
        let amount = |amount: Nanoton| {
            Amount::try_from(amount).map_err(|error| ClientError::Request(error.to_string()))
        };
        let generation = &network.generation;
        Ok(JobTerms {
            until: now_s.saturating_add(self.open_for_s),
            deposit: amount(deposit)?,
            limits: JobLimits {
                max_units: self.max_units,
                least_bond: amount(generation.bond_for(deposit))?,
            },
            seller: Seller {
                worker: self.worker.address,
                receipt_key: *receipt_key,
                model: network.model_address(&self.model_id)?.address,
                settle_within_s: self.settle_within_s,
                share_bps: generation.share_bps(offer.royalty_bps),
                prices: offer.prices,
            },
            model_id: self.model_id,
        })
    }

    /// Seals the input to the worker and builds the message that posts the job on these terms.
    ///
    /// # Errors
    /// [`ClientError::Request`] where the value does not bring the deposit; sealing and cell errors.
    pub fn seal(
        &self,
        terms: JobTerms,
        posting: &Posting<'_>,
        rng: &mut impl CryptoRng,
    ) -> Result<SealedJob, ClientError> {
        let client = posting.client;
        let network_id = posting.network.id();
        let address = posting.network.job_address(client, posting.nonce)?;
        let reply_to = reply_key(posting.reply_keys, network_id, &address)?;
        let input = Input::new(reply_to.public(), self.work.clone());
        let context =
            InputContext { network_id, job: address.clone(), model_id: terms.model_id, until: terms.until };
        let sealed = seal_input(&input, posting.encryption_key, &context, rng)?;
        if posting.value < terms.deposit.nanoton() {
            return Err(ClientError::Request("the message does not even bring the deposit".into()));
        }
        let JobTerms { until, deposit, limits, seller, .. } = terms.clone();
        let post = PostJob::new(posting.nonce, until, deposit, limits, seller, &sealed)?;
        let init = posting.network.job_state_init(client, posting.nonce)?;
        let transfer =
            Transfer::new(address.clone(), posting.value.get(), post.to_cell()?).with_state_init(init);
        Ok(SealedJob { address, nonce: posting.nonce, terms, transfer })
    }
}

/// Limits of the Job contract (`contracts/job.tolk`).
const MAX_OPEN_FOR_S: u32 = 7 * 86_400;
const MIN_SETTLE_WITHIN_S: u32 = 30;
const MAX_SETTLE_WITHIN_S: u32 = 7 * 86_400;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_limits_are_those_of_the_contract() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../contracts/job.tolk");
        let text = std::fs::read_to_string(path).unwrap();
        for (name, ours) in [
            ("MAX_WAIT_S", MAX_OPEN_FOR_S),
            ("MIN_SETTLE_S", MIN_SETTLE_WITHIN_S),
            ("MAX_SETTLE_S", MAX_SETTLE_WITHIN_S),
        ] {
            let stated =
                text.lines().find_map(|line| line.strip_prefix(&format!("const {name} = "))).unwrap();
            let product: u32 =
                stated.split('*').map(|factor| factor.trim().parse::<u32>().unwrap()).product();
            assert_eq!(product, ours, "{name}");
        }
    }
}
