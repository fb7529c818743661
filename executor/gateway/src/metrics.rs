//! Counters in Prometheus' text format. No label comes from a request's content.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::market::Done;

/// What is counted of the HTTP side.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: Mutex<Vec<((&'static str, u16), u64)>>,
    first_piece: Histogram,
    whole: Histogram,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    completion_tokens: AtomicU64,
    paid_nanoton: AtomicU64,
}

impl Metrics {
    pub(crate) fn answered(&self, endpoint: &'static str, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match requests.iter_mut().find(|(key, _)| *key == (endpoint, status)) {
            Some((_, count)) => *count += 1,
            None => requests.push(((endpoint, status), 1)),
        }
    }

    pub(crate) fn first_piece(&self, after: Duration) {
        self.first_piece.observe(after);
    }

    pub(crate) fn done(&self, done: &Done, after: Duration) {
        self.whole.observe(after);
        self.prompt_tokens.fetch_add(done.usage.prompt_tokens, Ordering::Relaxed);
        self.cached_tokens.fetch_add(done.usage.cached_tokens, Ordering::Relaxed);
        self.completion_tokens.fetch_add(done.usage.completion_tokens, Ordering::Relaxed);
        self.paid(done.paid.amount.get());
    }

    pub(crate) fn paid(&self, nanoton: u128) {
        self.paid_nanoton.fetch_add(u64::try_from(nanoton).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The text format, version 0.0.4, with how many requests are `under_way`.
    pub(crate) fn text(&self, under_way: usize) -> String {
        let mut out = String::new();
        head(
            &mut out,
            "chrysalis_gateway_requests_under_way",
            "gauge",
            "Requests that wait for their answer.",
        );
        let _ = writeln!(out, "chrysalis_gateway_requests_under_way {under_way}");
        let mut requests = self.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        requests.sort_unstable();
        head(&mut out, "chrysalis_gateway_requests_total", "counter", "HTTP requests answered.");
        for ((endpoint, status), count) in requests {
            let _ = writeln!(
                out,
                "chrysalis_gateway_requests_total{{endpoint=\"{endpoint}\",status=\"{status}\"}} {count}"
            );
        }
        for (name, kind, help, value) in [
            (
                "prompt_tokens_total",
                "counter",
                "Tokens of prompts, as receipts state them.",
                &self.prompt_tokens,
            ),
            ("cached_tokens_total", "counter", "Those found in a worker's cache.", &self.cached_tokens),
            ("completion_tokens_total", "counter", "Tokens of answers.", &self.completion_tokens),
            ("paid_nanoton_total", "counter", "What receipts added up to.", &self.paid_nanoton),
        ] {
            let name = format!("chrysalis_gateway_{name}");
            head(&mut out, &name, kind, help);
            let _ = writeln!(out, "{name} {}", value.load(Ordering::Relaxed));
        }
        self.first_piece.write(
            &mut out,
            "chrysalis_gateway_first_piece_seconds",
            "Time from a request to the first piece of its answer.",
        );
        self.whole.write(
            &mut out,
            "chrysalis_gateway_answer_seconds",
            "Time from a request to its answer's end.",
        );
        out
    }
}

const BOUNDS_MS: [u64; 12] = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 60_000];

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS_MS.len()],
    count: AtomicU64,
    sum_us: AtomicU64,
}

impl Histogram {
    fn observe(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        for (bound, bucket) in BOUNDS_MS.iter().zip(&self.buckets) {
            if us <= bound * 1000 {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, help: &str) {
        head(out, name, "histogram", help);
        for (bound, bucket) in BOUNDS_MS.iter().zip(&self.buckets) {
            let _ = writeln!(
                out,
                "{name}_bucket{{le=\"{}\"}} {}",
                *bound as f64 / 1e3,
                bucket.load(Ordering::Relaxed)
            );
        }
        let count = self.count.load(Ordering::Relaxed);
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{name}_sum {}", self.sum_us.load(Ordering::Relaxed) as f64 / 1e6);
        let _ = writeln!(out, "{name}_count {count}");
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}");
    let _ = writeln!(out, "# TYPE {name} {kind}");
}
