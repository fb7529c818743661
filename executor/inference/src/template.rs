//! Chat templates. A template is a program of the model's publisher, so what it may take is bounded: steps, bytes of output
//! and, where it runs in a process of its own ([`isolate_templates`]), memory and time.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::OnceLock;

use minijinja::Environment;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::tokenizer_file::guarded;

/// Runs every template from now on in a process of its own: `program` with `arguments`, which has to call
/// [`render_in_child`] at once and do nothing else. A second call changes nothing.
///
/// The process has an empty environment, no files but its pipes, no core dump, 96 MiB and sixteen times the bytes
/// of its input beside what it starts with, and 5 seconds of processor time. Without it, templates run in this
/// process, where steps and output are bounded and memory is not: for models whose publisher is trusted.
pub fn isolate_templates(program: PathBuf, arguments: Vec<OsString>) {
    let _ = CHILD.set((program, arguments));
}

/// The child's side of [`isolate_templates`]: reads a template and a conversation from standard input, writes the prompt to
/// standard output. Says nothing of what went wrong.
pub fn render_in_child() -> ExitCode {
    let mut input = Vec::new();
    let is_read = io::stdin().lock().read_to_end(&mut input).is_ok();
    if !is_read || confine(input.len()).is_none() {
        return ExitCode::FAILURE;
    }
    let Ok(job) = serde_json::from_slice::<Value>(&input) else { return ExitCode::FAILURE };
    drop(input);
    let most = job["most_bytes"].as_u64().and_then(|most| usize::try_from(most).ok()).unwrap_or(0);
    let rendered = job["template"].as_str().map(str::to_owned).and_then(|template| {
        let environment = environment(template)?;
        match &job["context"] {
            Value::Null => Some(Zeroizing::default()),
            context => render(&environment, context, most),
        }
    });
    let is_written = rendered.is_some_and(|text| {
        let mut out = io::stdout().lock();
        out.write_all(&text).and_then(|()| out.flush()).is_ok()
    });
    if is_written { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Memory of a rendering process beside what it starts with and what its input takes.
const MEMORY_BYTES: u64 = 96 << 20;
/// Processor time of a rendering process.
const CPU_S: u64 = 5;

/// Bytes of a template.
const MAX_TEMPLATE_BYTES: usize = 1 << 20;
/// Steps that a template may take.
const FUEL: u64 = 1_000_000;
const NAME: &str = "chat";

static CHILD: OnceLock<(PathBuf, Vec<OsString>)> = OnceLock::new();

/// A model's chat template.
pub(crate) struct Template {
    source: String,
    /// Understood in this process; not where templates run in one of their own.
    here: OnceLock<Option<Environment<'static>>>,
}

impl Template {
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(source: String) -> Result<Self, String> {
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(format!("its chat template has {} bytes", source.len()));
        }
        let template = Self { source, here: OnceLock::new() };
        let is_sound = match CHILD.get() {
            Some(_) => template.elsewhere(&Value::Null, 0).is_some(),
            None => template.here().is_some(),
        };
        if is_sound { Ok(template) } else { Err("its chat template does not parse".into()) }
    }

    /// The prompt, of `most` bytes at most. `None` where the template refuses, fails, or takes too much.
    pub(crate) fn render(&self, context: &Value, most: usize) -> Option<Zeroizing<Vec<u8>>> {
        match CHILD.get() {
            Some(_) => self.elsewhere(context, most),
            None => render(self.here()?, context, most),
        }
    }

    fn here(&self) -> Option<&Environment<'static>> {
        self.here.get_or_init(|| environment(self.source.clone())).as_ref()
    }

    fn elsewhere(&self, context: &Value, most: usize) -> Option<Zeroizing<Vec<u8>>> {
        let (program, arguments) = CHILD.get()?;
        let job = json!({ "template": self.source, "context": context, "most_bytes": most });
        let job = Zeroizing::new(serde_json::to_vec(&job).ok()?);
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        // It reads all of its input before it writes anything.
        let is_sent = child.stdin.take().is_some_and(|mut input| input.write_all(&job).is_ok());
        let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
        let mut text = Zeroizing::new(Vec::with_capacity(READ_AHEAD_BYTES));
        let is_received = is_sent
            && child.stdout.take().is_some_and(|out| out.take(limit).read_to_end(&mut text).is_ok())
            && text.len() <= most;
        if !is_received {
            // It may have ended already.
            let _ = child.kill();
        }
        let status = child.wait().ok()?;
        (is_received && status.success()).then_some(text)
    }
}

/// Most prompts fit, so that no copy of one is left behind by a buffer that grew.
const READ_AHEAD_BYTES: usize = 1 << 16;

fn environment(source: String) -> Option<Environment<'static>> {
    let mut environment = Environment::new();
    environment.add_function("raise_exception", |_: String| -> Result<String, minijinja::Error> {
        Err(minijinja::ErrorKind::InvalidOperation.into())
    });
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_fuel(Some(FUEL));
    guarded(|| environment.add_template_owned(NAME, source))?;
    Some(environment)
}

fn render(environment: &Environment<'_>, context: &Value, most: usize) -> Option<Zeroizing<Vec<u8>>> {
    let mut text = Bounded { text: Zeroizing::default(), most };
    let template = environment.get_template(NAME).ok()?;
    guarded(|| template.render_captured_to(context, &mut text))?;
    Some(text.text)
}

/// Takes what a template writes, up to a limit.
struct Bounded {
    text: Zeroizing<Vec<u8>>,
    most: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.len().saturating_add(bytes.len()) > self.most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives up what this process may not need. `None` where the system refuses.
#[cfg(unix)]
fn confine(input_bytes: usize) -> Option<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};

    let input = u64::try_from(input_bytes).ok()?.saturating_mul(16);
    let memory = mapped_bytes().saturating_add(MEMORY_BYTES).saturating_add(input);
    for (resource, most) in
        [(Resource::As, memory), (Resource::Cpu, CPU_S), (Resource::Core, 0), (Resource::Nofile, 3)]
    {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }).ok()?;
    }
    Some(())
}

#[cfg(not(unix))]
fn confine(_: usize) -> Option<()> {
    Some(())
}

/// Address space that the process has by now: its program and libraries.
#[cfg(unix)]
fn mapped_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    match pages {
        Some(pages) => pages.saturating_mul(rustix::param::page_size() as u64),
        None => MAPPED_IF_UNKNOWN,
    }
}

#[cfg(unix)]
const MAPPED_IF_UNKNOWN: u64 = 1 << 30;
