//! Which tokens go through the model together: a pure state machine, without a model, threads or a clock.
//!
//! Requests wait in a bounded queue, are admitted when blocks for all their tokens are there, and then run until they
//! end. A step has a budget of tokens: every running request gets at least one of it, and prompts share what is left.
//! Where a running request needs a block and none is left, the one that came last gives its blocks up and is computed
//! again later. It therefore always moves: the oldest of those that run is never stopped, and one that waits is
//! overtaken [`MOST_OVERTAKEN`] times at most.

use std::collections::HashMap;

use zeroize::Zeroizing;

use super::blocks::{Blocks, Key};
use crate::attention::BLOCK_TOKENS;
use crate::model::Span;

/// How often a waiting request lets one that came after it go first, so that clients take turns.
pub(crate) const MOST_OVERTAKEN: u32 = 8;

/// What may be in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) blocks: usize,
    /// Tokens of a step; not less than `running`.
    pub(crate) step_tokens: usize,
    pub(crate) running: usize,
    pub(crate) waiting: usize,
}

/// Something to compute.
pub(crate) struct Job {
    /// Whose it is: clients take turns.
    pub(crate) client: [u8; 32],
    /// Under which its blocks are published and looked for; none: neither.
    pub(crate) prefix: Option<Key>,
    /// At least one.
    pub(crate) prompt: Zeroizing<Vec<u32>>,
    /// The most tokens of the answer, at least one.
    pub(crate) most_output: usize,
    /// In the caller's clock.
    pub(crate) deadline_ms: Option<u64>,
}

/// Why a job is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It needs more blocks than there are, whatever else runs.
    TooLarge { blocks: usize },
    /// The queue is full.
    Full,
}

/// A job's number, counted from 0 in the order of arrival.
pub(crate) type JobId = u64;

/// A step.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// What goes through the model. Nothing where all is done.
    pub(crate) work: Vec<Work>,
    /// Jobs that passed their deadline, and are gone.
    pub(crate) expired: Vec<JobId>,
}

/// Tokens of a job that go through the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) job: JobId,
    pub(crate) tokens: usize,
    /// Whether the next token can be chosen after it.
    pub(crate) last: bool,
}

/// What is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Load {
    pub(crate) running: usize,
    pub(crate) waiting: usize,
    pub(crate) blocks_in_use: usize,
    pub(crate) preemptions: u64,
}

/// All jobs. See the module's page.
pub(crate) struct Scheduler {
    limits: Limits,
    blocks: Blocks,
    next: JobId,
    /// In the order of arrival.
    waiting: Vec<Sequence>,
    /// In the order of arrival.
    running: Vec<Sequence>,
    preemptions: u64,
}

struct Sequence {
    id: JobId,
    job: Job,
    /// Prompt and answer.
    tokens: Zeroizing<Vec<u32>>,
    /// The keys after each full block of `tokens`.
    keys: Vec<Key>,
    /// The blocks it holds: none while it waits, else for all of `tokens`.
    blocks: Vec<u32>,
    /// Tokens whose keys and values lie in `blocks`.
    computed: usize,
    overtaken: u32,
    /// Tokens of the prompt that were found when it first ran.
    found: Option<usize>,
}

impl Scheduler {
    /// `running` is raised to 1, and `step_tokens` to `running`.
    pub(crate) fn new(limits: Limits) -> Self {
        let running = limits.running.max(1);
        let limits = Limits { running, step_tokens: limits.step_tokens.max(running), ..limits };
        Self {
            blocks: Blocks::new(limits.blocks),
            limits,
            next: 0,
            waiting: Vec::new(),
            running: Vec::new(),
            preemptions: 0,
        }
    }

    /// Blocks that a job holds at its longest. The last token of an answer is never computed.
    pub(crate) fn blocks_for(prompt_tokens: usize, most_output: usize) -> usize {
        prompt_tokens.saturating_add(most_output).saturating_sub(1).div_ceil(BLOCK_TOKENS)
    }

    /// Queues a job.
    ///
    /// # Errors
    /// [`Refusal`]; the job is gone.
    pub(crate) fn submit(&mut self, job: Job) -> Result<JobId, Refusal> {
        let blocks = Self::blocks_for(job.prompt.len(), job.most_output);
        if blocks > self.blocks.capacity() {
            return Err(Refusal::TooLarge { blocks });
        }
        if self.waiting.len() >= self.limits.waiting {
            return Err(Refusal::Full);
        }
        let id = self.next;
        self.next += 1;
        self.waiting.push(Sequence {
            id,
            tokens: job.prompt.clone(),
            job,
            keys: Vec::new(),
            blocks: Vec::new(),
            computed: 0,
            overtaken: 0,
            found: None,
        });
        Ok(id)
    }

    /// What to do next. Its work must be done, and be reported by [`Scheduler::done`], before the next call.
    pub(crate) fn plan(&mut self, now_ms: u64) -> Step {
        let expired = self.expire(now_ms);
        let preempted = self.hold_blocks();
        if !preempted {
            self.admit();
        }
        let mut budget = self.limits.step_tokens;
        let mut order: Vec<(usize, JobId)> = self
            .running
            .iter()
            .map(|sequence| (sequence.tokens.len() - sequence.computed, sequence.id))
            .filter(|(due, _)| *due > 0)
            .collect();
        // Those with least to do first, so that what they leave goes to the others.
        order.sort_unstable();
        let mut left = order.len();
        let mut work = Vec::with_capacity(left);
        for (due, job) in order {
            let tokens = due.min(budget / left);
            (budget, left) = (budget - tokens, left - 1);
            work.push(Work { job, tokens, last: tokens == due });
        }
        work.sort_by_key(|work| work.job);
        Step { work, expired }
    }

    /// The tokens of `work`, as the model takes them.
    pub(crate) fn span(&self, work: &Work) -> Option<Span<'_>> {
        let sequence = self.running.iter().find(|sequence| sequence.id == work.job)?;
        let start = sequence.computed;
        let tokens = sequence.tokens.get(start..start + work.tokens)?;
        let from = if work.last { work.tokens.saturating_sub(1) } else { work.tokens };
        Some(Span { tokens, start, blocks: &sequence.blocks, from })
    }

    /// `work` went through the model.
    pub(crate) fn done(&mut self, work: &Work) {
        let Some(sequence) = self.running.iter_mut().find(|sequence| sequence.id == work.job) else { return };
        let before = sequence.computed / BLOCK_TOKENS;
        sequence.computed += work.tokens;
        let after = sequence.computed / BLOCK_TOKENS;
        sequence.extend_keys(after);
        for (block, key) in sequence.blocks.iter().zip(&sequence.keys).take(after).skip(before) {
            self.blocks.publish(*block, *key);
        }
    }

    /// Appends a token of the answer to a job that runs and has nothing left to compute.
    pub(crate) fn push(&mut self, id: JobId, token: u32) {
        if let Some(sequence) = self.running.iter_mut().find(|sequence| sequence.id == id) {
            sequence.tokens.push(token);
        }
    }

    /// Ends a job, wherever it is.
    pub(crate) fn remove(&mut self, id: JobId) {
        self.waiting.retain(|sequence| sequence.id != id);
        if let Some(at) = self.running.iter().position(|sequence| sequence.id == id) {
            let sequence = self.running.remove(at);
            self.blocks.release(sequence.blocks);
        }
    }

    /// Tokens of the job's prompt that were found computed when it first ran. None where it has not run.
    pub(crate) fn found(&self, id: JobId) -> Option<usize> {
        self.running.iter().chain(&self.waiting).find(|sequence| sequence.id == id)?.found
    }

    /// What was computed is lost: jobs that run start again, and nothing is found.
    pub(crate) fn forget_computed(&mut self) {
        while let Some(youngest) = self.running.pop() {
            self.preempt(youngest);
        }
        self.blocks.forget_all();
    }

    /// Ends all jobs and forgets what is in the cache.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        for sequence in std::mem::take(&mut self.running) {
            self.blocks.release(sequence.blocks);
        }
        self.blocks.forget_all();
    }

    pub(crate) fn load(&self) -> Load {
        Load {
            running: self.running.len(),
            waiting: self.waiting.len(),
            blocks_in_use: self.blocks.capacity() - self.blocks.available(),
            preemptions: self.preemptions,
        }
    }

    fn expire(&mut self, now_ms: u64) -> Vec<JobId> {
        let late = |sequence: &&Sequence| sequence.job.deadline_ms.is_some_and(|deadline| deadline <= now_ms);
        let all = self.running.iter().chain(&self.waiting);
        let expired: Vec<JobId> = all.filter(late).map(|sequence| sequence.id).collect();
        expired.iter().for_each(|id| self.remove(*id));
        expired
    }

    /// Gets running jobs the blocks for their next token, the oldest first; the youngest give up theirs for it.
    /// Returns whether one had to.
    fn hold_blocks(&mut self) -> bool {
        let mut preempted = false;
        let mut at = 0;
        while let Some(sequence) = self.running.get_mut(at) {
            if sequence.blocks.len() * BLOCK_TOKENS >= sequence.tokens.len() {
                at += 1;
            } else if let Some(block) = self.blocks.take() {
                sequence.blocks.push(block);
            } else if let Some(youngest) = self.running.pop() {
                self.preempt(youngest);
                preempted = true;
            }
        }
        preempted
    }

    fn preempt(&mut self, mut sequence: Sequence) {
        self.blocks.release(std::mem::take(&mut sequence.blocks));
        sequence.computed = 0;
        // It ran already: nobody overtakes it.
        sequence.overtaken = MOST_OVERTAKEN;
        self.preemptions += 1;
        let place = self.waiting.partition_point(|other| other.id < sequence.id);
        self.waiting.insert(place, sequence);
    }

    fn admit(&mut self) {
        while self.running.len() < self.limits.running
            && let Some(at) = self.next_to_admit()
            && self.seat(at)
        {
            let mut sequence = self.waiting.remove(at);
            sequence.found.get_or_insert(sequence.computed);
            self.waiting[..at].iter_mut().for_each(|passed| passed.overtaken += 1);
            let place = self.running.partition_point(|other| other.id < sequence.id);
            self.running.insert(place, sequence);
        }
    }

    /// The oldest of those that may not be overtaken, else the oldest of the client of whom fewest run.
    fn next_to_admit(&self) -> Option<usize> {
        if let Some(at) = self.waiting.iter().position(|sequence| sequence.overtaken >= MOST_OVERTAKEN) {
            return Some(at);
        }
        let mut running: HashMap<&[u8; 32], usize> = HashMap::new();
        for sequence in &self.running {
            *running.entry(&sequence.job.client).or_default() += 1;
        }
        let of = |sequence: &Sequence| running.get(&sequence.job.client).copied().unwrap_or(0);
        (0..self.waiting.len()).min_by_key(|at| (of(&self.waiting[*at]), self.waiting[*at].id))
    }

    /// Gets a waiting job the blocks for all its tokens, those that are computed already among them. Leaves one for
    /// each running job's growth. False where there are not as many: then it holds none.
    fn seat(&mut self, at: usize) -> bool {
        let reserve = self.running.len();
        let sequence = &mut self.waiting[at];
        let tokens = sequence.tokens.len();
        // The last token goes through the model in any case: what follows it is asked for.
        let reusable = (tokens - 1) / BLOCK_TOKENS;
        sequence.extend_keys(reusable);
        let keys = sequence.keys.iter().take(reusable);
        let mut blocks: Vec<u32> = keys.map_while(|key| self.blocks.find(key)).collect();
        let found = blocks.len();
        let needed = tokens.div_ceil(BLOCK_TOKENS) - found;
        if needed + reserve > self.blocks.available() {
            self.blocks.release(blocks);
            return false;
        }
        blocks.extend((0..needed).map_while(|_| self.blocks.take()));
        sequence.computed = found * BLOCK_TOKENS;
        sequence.blocks = blocks;
        true
    }
}

impl Sequence {
    /// Makes sure that the keys of the first `blocks` blocks are there, where they are published at all.
    fn extend_keys(&mut self, blocks: usize) {
        let Some(root) = self.job.prefix else { return };
        for block in self.keys.len()..blocks {
            let before = self.keys.last().unwrap_or(&root);
            let key = before.after(&self.tokens[block * BLOCK_TOKENS..(block + 1) * BLOCK_TOKENS]);
            self.keys.push(key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;

    const STEPS: usize = 20_000;

    #[derive(Debug, Clone)]
    struct Case {
        client: u8,
        /// 0: none.
        scope: u8,
        family: u32,
        prompt: usize,
        output: usize,
        arrives: usize,
        leaves: Option<usize>,
        deadline: Option<u64>,
    }

    fn cases() -> impl Strategy<Value = Vec<Case>> {
        let case = (
            0..3u8,
            0..3u8,
            0..2u32,
            1..150usize,
            1..50usize,
            0..20usize,
            prop::option::weighted(0.1, 0..40usize),
            prop::option::weighted(0.1, 0..60u64),
        );
        let case = case.prop_map(|(client, scope, family, prompt, output, arrives, leaves, deadline)| Case {
            client,
            scope,
            family,
            prompt,
            output,
            arrives,
            leaves,
            deadline,
        });
        prop::collection::vec(case, 1..24)
    }

    impl Case {
        /// Prompts of a family begin alike.
        fn tokens(&self) -> Vec<u32> {
            (0..self.prompt).map(|at| self.family * 1000 + (at % 7) as u32).collect()
        }

        fn job(&self) -> Job {
            Job {
                client: [self.client; 32],
                prefix: (self.scope > 0).then(|| Key::root(&[9; 32], &[self.scope])),
                prompt: Zeroizing::new(self.tokens()),
                most_output: self.output,
                deadline_ms: self.deadline,
            }
        }
    }

    /// What keys and values at the end of `tokens` are: a function of all of them.
    fn content(tokens: &[u32]) -> [u8; 32] {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        Sha256::digest(bytes).into()
    }

    fn next(tokens: &[u32]) -> u32 {
        u32::from(content(tokens)[0] % 5)
    }

    fn alone(case: &Case) -> Vec<u32> {
        let mut tokens = case.tokens();
        for _ in 0..case.output {
            tokens.push(next(&tokens));
        }
        tokens.split_off(case.prompt)
    }

    struct World {
        scheduler: Scheduler,
        /// By block and place: content, and the scope it was written in.
        slots: HashMap<(u32, usize), ([u8; 32], u8)>,
        jobs: HashMap<JobId, (Case, Vec<u32>)>,
    }

    impl World {
        fn check_blocks(&self) {
            let mut holders = vec![0; self.scheduler.blocks.holders().len()];
            for sequence in &self.scheduler.running {
                sequence.blocks.iter().for_each(|block| holders[*block as usize] += 1);
            }
            let counted: Vec<u32> = self.scheduler.blocks.holders().iter().map(|(count, _)| *count).collect();
            assert_eq!(holders, counted, "every block is held as often as it is listed");
            assert!(self.scheduler.waiting.iter().all(|sequence| sequence.blocks.is_empty()));
            assert!(self.scheduler.waiting.iter().all(|sequence| sequence.overtaken <= MOST_OVERTAKEN));
            assert!(self.scheduler.waiting.is_sorted_by_key(|sequence| sequence.id));
            assert!(self.scheduler.running.is_sorted_by_key(|sequence| sequence.id));
        }

        fn run(&mut self, work: &Work) -> bool {
            let holders = self.scheduler.blocks.holders();
            let span = self.scheduler.span(work).unwrap();
            let (case, output) = &self.jobs[&work.job];
            let tokens = [case.tokens(), output.clone()].concat();
            assert_eq!(span.tokens, &tokens[span.start..span.start + work.tokens]);
            let place = |at: usize| (span.blocks[at / BLOCK_TOKENS], at % BLOCK_TOKENS);
            for at in 0..span.start {
                let (content_there, scope) = self.slots[&place(at)];
                assert_eq!(content_there, content(&tokens[..=at]), "what is reused is what it would compute");
                assert_eq!(scope, case.scope, "nothing is found across scopes");
            }
            for at in span.start..span.start + work.tokens {
                assert_eq!(holders[place(at).0 as usize], (1, false), "what is written is one's own");
                self.slots.insert(place(at), (content(&tokens[..=at]), case.scope));
            }
            assert_eq!(work.last, span.start + work.tokens == tokens.len());
            self.scheduler.done(work);
            if !work.last {
                return false;
            }
            let token = next(&tokens);
            let (case, output) = self.jobs.get_mut(&work.job).unwrap();
            output.push(token);
            let ended = output.len() == case.output;
            if ended {
                self.scheduler.remove(work.job);
            } else {
                self.scheduler.push(work.job, token);
            }
            ended
        }
    }

    proptest! {
        #[test]
        fn every_job_ends_with_its_own_answer_within_the_limits(
            cases in cases(),
            blocks in 1..14usize,
            step_tokens in 1..100usize,
            running in 1..7usize,
            waiting in 1..12usize,
        ) {
            let scheduler = Scheduler::new(Limits { blocks, step_tokens, running, waiting });
            let limits = scheduler.limits;
            let mut world = World { scheduler, slots: HashMap::new(), jobs: HashMap::new() };
            let mut due: Vec<Case> = cases;
            let mut live: Vec<JobId> = Vec::new();
            for now in 0..STEPS {
                let (arriving, later): (Vec<Case>, Vec<Case>) =
                    due.into_iter().partition(|case| case.arrives <= now);
                due = later;
                for case in arriving {
                    let fits = Scheduler::blocks_for(case.prompt, case.output) <= blocks;
                    let room = world.scheduler.waiting.len() < waiting;
                    match world.scheduler.submit(case.job()) {
                        Ok(id) => {
                            prop_assert!(fits && room);
                            live.push(id);
                            world.jobs.insert(id, (case, Vec::new()));
                        }
                        Err(Refusal::TooLarge { .. }) => prop_assert!(!fits),
                        Err(Refusal::Full) => prop_assert!(fits && !room),
                    }
                }
                for id in live.clone() {
                    if world.jobs[&id].0.leaves.is_some_and(|leaves| leaves <= now) {
                        world.scheduler.remove(id);
                        live.retain(|other| *other != id);
                    }
                }
                let step = world.scheduler.plan(now as u64);
                for id in &step.expired {
                    prop_assert!(world.jobs[id].0.deadline.unwrap() <= now as u64);
                    live.retain(|other| other != id);
                }
                world.check_blocks();
                let tokens: usize = step.work.iter().map(|work| work.tokens).sum();
                prop_assert!(tokens <= limits.step_tokens);
                prop_assert!(world.scheduler.running.len() <= limits.running);
                prop_assert_eq!(step.work.len(), world.scheduler.running.len(), "all that run move");
                prop_assert!(step.work.iter().all(|work| work.tokens > 0));
                prop_assert!(step.work.is_empty() == live.is_empty(), "while there are jobs, there is work");
                for work in &step.work {
                    if world.run(work) {
                        let (case, output) = &world.jobs[&work.job];
                        prop_assert_eq!(output, &alone(case));
                        live.retain(|id| *id != work.job);
                    }
                }
                world.check_blocks();
                if live.is_empty() && due.is_empty() {
                    prop_assert_eq!(world.scheduler.load().blocks_in_use, 0);
                    return Ok(());
                }
            }
            prop_assert!(false, "{} jobs never ended", live.len());
        }
    }

    fn scheduler(blocks: usize, running: usize) -> Scheduler {
        Scheduler::new(Limits { blocks, step_tokens: 64, running, waiting: 100 })
    }

    fn case(client: u8, prompt: usize, output: usize) -> Case {
        Case { client, scope: 1, family: 0, prompt, output, arrives: 0, leaves: None, deadline: None }
    }

    /// Computes everything until `id` waits for its next token.
    fn prefill(scheduler: &mut Scheduler, id: JobId) {
        for _ in 0..100 {
            let step = scheduler.plan(0);
            step.work.iter().for_each(|work| scheduler.done(work));
            if step.work.iter().any(|work| work.job == id && work.last) {
                return;
            }
            step.work.iter().filter(|work| work.last).for_each(|work| scheduler.push(work.job, 7));
        }
        panic!("{id} never came to its end");
    }

    #[test]
    fn a_prompt_that_begins_as_one_before_is_computed_from_where_it_differs() {
        let mut scheduler = scheduler(100, 4);
        let first = scheduler.submit(case(1, 100, 5).job()).unwrap();
        prefill(&mut scheduler, first);
        assert_eq!(scheduler.found(first), Some(0));
        for (case, found) in [
            (case(1, 100, 5), 96),
            // The last token is computed even where all blocks are there.
            (case(1, 96, 5), 64),
            (Case { family: 1, ..case(1, 100, 5) }, 0),
            (Case { scope: 2, ..case(1, 100, 5) }, 0),
            (Case { scope: 0, ..case(1, 100, 5) }, 0),
        ] {
            let id = scheduler.submit(case.job()).unwrap();
            prefill(&mut scheduler, id);
            assert_eq!(scheduler.found(id), Some(found), "{case:?}");
            scheduler.remove(id);
        }
    }

    #[test]
    fn clients_take_turns_and_nobody_is_overtaken_for_ever() {
        let mut scheduler = scheduler(100, 2);
        let greedy: Vec<JobId> = (0..3).map(|_| scheduler.submit(case(1, 10, 90).job()).unwrap()).collect();
        let mut others: Vec<JobId> =
            (0..20).map(|_| scheduler.submit(case(2, 10, 90).job()).unwrap()).collect();
        let running =
            |scheduler: &Scheduler| scheduler.running.iter().map(|sequence| sequence.id).collect::<Vec<_>>();
        scheduler.plan(0);
        assert_eq!(running(&scheduler), [greedy[0], others[0]], "one of each, whoever came first");
        // The first client's job never ends, so the other client's always go first, up to a limit.
        for _ in 0..=MOST_OVERTAKEN {
            scheduler.remove(others.remove(0));
            scheduler.plan(0);
        }
        assert!(running(&scheduler).contains(&greedy[1]), "{:?}", running(&scheduler));
    }

    #[test]
    fn the_last_to_come_gives_way_and_comes_back() {
        let mut scheduler = scheduler(4, 4);
        let old = scheduler.submit(case(1, 40, 60).job()).unwrap();
        let young = scheduler.submit(Case { family: 1, ..case(1, 20, 60) }.job()).unwrap();
        let mut steps = 0;
        while scheduler.load().preemptions == 0 {
            let step = scheduler.plan(0);
            for work in &step.work {
                scheduler.done(work);
                if work.last {
                    scheduler.push(work.job, 3);
                }
            }
            steps += 1;
            assert!(steps < 100);
        }
        assert_eq!(scheduler.running.iter().map(|sequence| sequence.id).collect::<Vec<_>>(), [old]);
        assert_eq!(scheduler.waiting[0].id, young);
        let newcomer = scheduler.submit(case(2, 5, 5).job()).unwrap();
        let first = scheduler.next_to_admit().map(|at| scheduler.waiting[at].id);
        assert_eq!(first, Some(young), "even where it is another client's turn");
        scheduler.remove(newcomer);
        scheduler.remove(old);
        let step = scheduler.plan(0);
        assert_eq!(step.work.len(), 1);
        assert_eq!(scheduler.running[0].id, young);
    }

    #[test]
    fn late_jobs_go_and_full_queues_and_impossible_jobs_say_so() {
        let mut scheduler = Scheduler::new(Limits { blocks: 3, step_tokens: 8, running: 1, waiting: 2 });
        let too_large = scheduler.submit(case(1, 90, 8).job());
        assert_eq!(too_large, Err(Refusal::TooLarge { blocks: 4 }));
        scheduler.submit(Case { deadline: Some(5), ..case(1, 90, 7) }.job()).unwrap();
        scheduler.plan(0);
        let waits = scheduler.submit(Case { deadline: Some(3), ..case(1, 9, 7) }.job()).unwrap();
        scheduler.submit(case(1, 9, 7).job()).unwrap();
        assert_eq!(scheduler.submit(case(1, 9, 7).job()), Err(Refusal::Full));
        assert_eq!(scheduler.plan(3).expired, [waits]);
        assert_eq!(scheduler.plan(5).expired, [0]);
        assert_eq!(scheduler.load().running, 1);
    }
}
