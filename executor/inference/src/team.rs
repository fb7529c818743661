//! The threads that share the work of one pass through a model.
//!
//! A pass has hundreds of short phases. Starting a thread-pool task for each costs more than many of them take, so the
//! pool's threads are asked once a pass and then watch for phases. The leader, who calls, needs none of them: it works
//! through a phase's tasks itself, and waits only for tasks that a helper has begun. So a helper that comes late, or
//! never, costs time and nothing else, and which thread did a task shows in no result.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Looks at a word that changes soon before the thread lets others run.
const SPINS: u32 = 2_000;

/// Hands out the work. It is not `Sync`: no task can start a phase.
pub(crate) struct Leader<'a> {
    team: &'a Team,
    threads: usize,
    own_thread_only: PhantomData<*const ()>,
}

/// The same columns of every row of a matrix `[rows, width]`.
pub(crate) struct Strip<'a> {
    start: *mut f32,
    rows: usize,
    width: usize,
    columns: Range<usize>,
    borrowed: PhantomData<&'a mut [f32]>,
}

/// Runs `work` with the threads of the current rayon pool.
pub(crate) fn with_team<R>(work: impl FnOnce(&Leader<'_>) -> R) -> R {
    let threads = rayon::current_num_threads();
    let team = Team::default();
    let leader = Leader { team: &team, threads, own_thread_only: PhantomData };
    if threads == 1 {
        return work(&leader);
    }
    rayon::in_place_scope(|scope| {
        let _release = Release(&team);
        for _ in 1..threads {
            scope.spawn(|_| team.help());
        }
        work(&leader)
    })
}

impl Leader<'_> {
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `work` for every number below `count`, each once.
    pub(crate) fn each(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        if self.threads == 1 || count <= 1 {
            (0..count).for_each(work);
            return;
        }
        self.team.run(count, work);
    }

    /// Splits `data` into chunks of `length`, the last perhaps shorter, and runs `work` for each with its number.
    pub(crate) fn chunks<T: Send>(
        &self,
        data: &mut [T],
        length: usize,
        work: &(dyn Fn(usize, &mut [T]) + Sync),
    ) {
        let whole = data.len();
        let start = Pointer(data.as_mut_ptr());
        self.each(whole.div_ceil(length), &|index| {
            let from = index * length;
            let count = length.min(whole - from);
            // SAFETY: `data` is borrowed until `each` returns, and every index, so every chunk, comes once.
            work(index, unsafe { std::slice::from_raw_parts_mut(start.get().add(from), count) });
        });
    }

    /// Splits matrices, each of rows of its own `width`, into strips of `columns` columns, and runs `work` for each
    /// strip with the number of its matrix.
    pub(crate) fn strips(
        &self,
        matrices: &mut [(&mut [f32], usize)],
        columns: usize,
        work: &(dyn Fn(usize, &mut Strip<'_>) + Sync),
    ) {
        let mut grids = Vec::with_capacity(matrices.len());
        let mut tasks = 0;
        for (data, width) in matrices.iter_mut() {
            let start = Pointer(data.as_mut_ptr());
            grids.push((tasks, start, data.len() / *width, *width));
            tasks += width.div_ceil(columns);
        }
        self.each(tasks, &|index| {
            let which = grids.partition_point(|(first, ..)| *first <= index) - 1;
            let (first, start, rows, width) = &grids[which];
            let from = (index - first) * columns;
            // Every index comes once, so no two strips share a number, and the matrices are borrowed until `each`
            // returns.
            let mut strip = Strip {
                start: start.get(),
                rows: *rows,
                width: *width,
                columns: from..(from + columns).min(*width),
                borrowed: PhantomData,
            };
            work(which, &mut strip);
        });
    }
}

impl Strip<'_> {
    pub(crate) fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// The strip's part of row `row`.
    pub(crate) fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "a strip has {} rows", self.rows);
        let from = row * self.width + self.columns.start;
        // SAFETY: within the matrix, since the row is and the columns are below `width`; the columns are this strip's
        // alone, and the result borrows the strip.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), self.columns.len()) }
    }
}

/// What the threads share.
struct Team {
    /// Odd while a phase is open. It only grows.
    turn: AtomicUsize,
    /// Helpers that may look at the phase.
    inside: AtomicUsize,
    next: AtomicUsize,
    over: AtomicBool,
    failed: AtomicBool,
    phase: UnsafeCell<Option<Phase>>,
}

#[derive(Clone, Copy)]
struct Phase {
    count: usize,
    work: *const (dyn Fn(usize) + Sync),
}

// SAFETY: `phase` is written by the leader alone, while no phase is open and no helper inside, and read by helpers
// that are inside while it is open. `work` may be called from any thread.
unsafe impl Sync for Team {}

impl Default for Team {
    fn default() -> Self {
        Self {
            turn: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            phase: UnsafeCell::new(None),
        }
    }
}

impl Team {
    /// Only one thread, the leader's, calls this, and not from within a task.
    fn run(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        // SAFETY: only the lifetime is forgotten; `Close` waits for all who may still call it.
        let work_forever: *const (dyn Fn(usize) + Sync + 'static) =
            unsafe { std::mem::transmute(std::ptr::from_ref(work)) };
        // SAFETY: no phase is open, and `Close` waited until nobody was inside.
        unsafe { *self.phase.get() = Some(Phase { count, work: work_forever }) };
        self.next.store(0, Ordering::Relaxed);
        // A helper that counts itself inside before it sees this turn sees the phase too.
        self.turn.fetch_add(1, Ordering::SeqCst);
        let close = Close(self);
        self.take(count, work);
        drop(close);
        assert!(!self.failed.load(Ordering::SeqCst), "a task of a pass panicked on another thread");
    }

    fn take(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return;
            }
            work(index);
        }
    }

    /// A helper's life: until the leader is done.
    fn help(&self) {
        let mut done = 0;
        let mut spins = 0;
        while !self.over.load(Ordering::Acquire) {
            let turn = self.turn.load(Ordering::Acquire);
            if turn.is_multiple_of(2) || turn == done {
                pause(&mut spins);
                continue;
            }
            spins = 0;
            self.inside.fetch_add(1, Ordering::SeqCst);
            let mut leave = Leave { team: self, fine: false };
            // Still open, with this helper inside: the leader waits for it before it touches the phase.
            if self.turn.load(Ordering::SeqCst) == turn {
                // SAFETY: as above.
                if let Some(Phase { count, work }) = unsafe { *self.phase.get() } {
                    // SAFETY: the leader keeps what it points to until nobody is inside.
                    self.take(count, unsafe { &*work });
                }
                done = turn;
            }
            leave.fine = true;
        }
    }
}

fn pause(spins: &mut u32) {
    if *spins < SPINS {
        *spins += 1;
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

/// Closes the phase, also where the leader's own task panics.
struct Close<'a>(&'a Team);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.0.turn.fetch_add(1, Ordering::SeqCst);
        let mut spins = 0;
        while self.0.inside.load(Ordering::SeqCst) != 0 {
            pause(&mut spins);
        }
    }
}

struct Leave<'a> {
    team: &'a Team,
    fine: bool,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if !self.fine {
            self.team.failed.store(true, Ordering::SeqCst);
        }
        self.team.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Release<'a>(&'a Team);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
    }
}

/// A pointer that tasks on other threads may use.
struct Pointer<T>(*mut T);

// SAFETY: those who use it say which numbers they touch, and that nobody else does.
unsafe impl<T: Send> Send for Pointer<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Pointer<T> {}

impl<T> Pointer<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn on<R: Send>(threads: usize, work: impl FnOnce(&Leader<'_>) -> R + Send) -> R {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| with_team(work))
    }

    #[test]
    fn every_task_of_thousands_of_phases_runs_once() {
        for threads in [1, 2, 5] {
            on(threads, |leader| {
                for count in (0..40).cycle().take(4000) {
                    let seen: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                    leader.each(count, &|index| {
                        seen[index].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(seen.iter().all(|seen| seen.load(Ordering::Relaxed) == 1));
                }
            });
        }
    }

    #[test]
    fn strips_and_chunks_cover_all_numbers_once() {
        let (mut a, mut b, mut c) = (vec![0.0f32; 3 * 50], vec![0.0f32; 3 * 7], vec![0usize; 23]);
        on(3, |leader| {
            leader.strips(&mut [(&mut a, 50), (&mut b, 7)], 12, &|which, strip| {
                let columns = strip.columns();
                for row in 0..3 {
                    for (number, column) in strip.row(row).iter_mut().zip(columns.clone()) {
                        *number += (which * 1000 + row * 100 + column) as f32;
                    }
                }
            });
            leader
                .chunks(&mut c, 5, &|index, chunk| chunk.iter_mut().for_each(|number| *number += index + 1));
        });
        for (which, (data, width)) in [(a, 50), (b, 7)].into_iter().enumerate() {
            for (at, number) in data.iter().enumerate() {
                assert_eq!(*number, (which * 1000 + at / width * 100 + at % width) as f32);
            }
        }
        assert!(c.iter().enumerate().all(|(at, number)| *number == at / 5 + 1));
    }

    #[test]
    fn a_task_that_panics_ends_the_pass_and_not_the_pool() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for _ in 0..50 {
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                pool.install(|| {
                    with_team(|leader| leader.each(64, &|index| assert!(index != 40, "as it should")))
                });
            }));
            assert!(ended.is_err());
        }
        let sum = AtomicUsize::new(0);
        pool.install(|| {
            with_team(|leader| {
                leader.each(64, &|index| {
                    sum.fetch_add(index, Ordering::Relaxed);
                })
            })
        });
        assert_eq!(sum.into_inner(), 63 * 32);
    }
}
