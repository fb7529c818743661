//! Chat templates in a process of their own: good ones say the same as here, bombs end as an error, soon, and the memory they
//! took is measured. This program is its own child.
#![allow(clippy::unwrap_used)]
#![allow(unsafe_code, reason = "the system's own measure of a child's memory is a C function")]

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use inference::{ChatMessage, Engine, GenerateError, LoadError, ModelFiles, Turn};

const CHILD: &str = "render";
/// What a rendering process may take, its program and libraries included: [`inference`]'s own bound and room for those.
const MOST_BYTES: u64 = (96 + 64) << 20;
const SOON: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    if arguments.by_ref().nth(1).as_deref() == Some(CHILD) {
        return inference::render_in_child();
    }
    // Called as the test harness would be, with a filter or a wish to list.
    if std::env::args().any(|argument| argument == "--list") {
        println!("templates_are_rendered_apart: test");
        return ExitCode::SUCCESS;
    }
    let here = good();
    inference::isolate_templates(std::env::current_exe().unwrap(), vec![CHILD.into()]);
    assert_eq!(good(), here, "a template says the same in a process of its own");
    println!("peak of an honest child: {} MiB", peak_bytes() >> 20);
    for bomb in BOMBS {
        let began = Instant::now();
        let before = own_peak_bytes();
        is_refused(bomb);
        let grown = own_peak_bytes().saturating_sub(before);
        println!("{:>5} ms, child {} MiB: {bomb:.60}", began.elapsed().as_millis(), peak_bytes() >> 20);
        assert!(peak_bytes() < MOST_BYTES, "{bomb} took {} bytes", peak_bytes());
        assert!(grown < 32 << 20, "{bomb} took {grown} bytes here");
        assert!(began.elapsed() < SOON, "{bomb} took {:?}", began.elapsed());
    }
    // The bombs left nothing behind.
    assert_eq!(good(), here);
    long_conversations_fit();
    println!("templates_are_rendered_apart ... ok");
    ExitCode::SUCCESS
}

const BOMBS: [&str; 18] = [
    "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x]|join %}{% endfor %}",
    "{% set ns = namespace(x='xx') %}{% for i in range(9) %}{% set ns.x = ns.x * 99999 %}{% endfor %}",
    "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x|replace('a', 'aaaaaaaaaaaaaaaa') %}{% endfor %}",
    "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x.replace('a', 'aaaaaaaaaaaaaaaa') %}{% endfor %}",
    "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
    "{% macro f(x, n) %}{% if n > 0 %}{{ f(x ~ x, n - 1) }}{% else %}{{ x }}{% endif %}{% endmacro %}{{ f('x', 60) }}",
    "{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{{ f(n - 1) }}{% else %}xxxxxxxx{% endif %}{% endmacro %}{{ f(60) }}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = (ns.x + ns.x)|list %}{% endfor %}",
    "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = (ns.x + [range(99999)|list])|list %}{% endfor %}",
    "{{ range(99999)|map('string')|map('center', 99999)|list|length }}",
    "{{ 'x'|center(9999999999) }}",
    "{{ ('x' * 99999999) ~ ('y' * 99999999) ~ ('z' * 99999999) }}",
    "{% set x = 'x' * 9999999 %}{% for i in range(99999) %}{% set y = x|upper %}{% endfor %}",
    "{% for a in range(99999) %}{{ 'x' * 4096 }}{% endfor %}",
    "{{ messages|tojson(indent=99999999) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
];

fn is_refused(bomb: &str) {
    match engine(bomb) {
        // Understanding it is already too much.
        Err(LoadError::Corrupt { .. }) => {}
        Err(error) => panic!("{bomb}: {error}"),
        Ok(engine) => {
            let outcome = engine.tokenize_chat(&hello("hello"));
            // What is made and thrown away inside the bounds does no harm.
            if let Ok(ids) = &outcome {
                assert!(ids.len() < 64, "{bomb}");
            }
            assert!(matches!(outcome, Ok(_) | Err(GenerateError::Template)), "{bomb}");
        }
    }
}

/// Prompts of an ordinary template, with tools and without.
fn good() -> Vec<Vec<u32>> {
    let engine = engine(
        "{% if tools %}{{ tools|tojson }}{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content|trim }}\
         {% if m.tool_calls %}{{ m.tool_calls[0].function.name }}{% endif %}<|im_end|>\n{% endfor %}\
         {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    )
    .unwrap();
    let calls = serde_json::json!([{ "function": { "name": "weather" } }]);
    let tools = serde_json::json!([{ "type": "function", "function": { "name": "weather" } }]);
    let called = Turn { tool_calls: Some(&calls), ..Turn::new("assistant", "") };
    let turns = [Turn::new("user", " é \"quoted\" \\ \u{1f680} "), called, Turn::new("tool", "rain")];
    let with = engine.tokenize_turns(&turns, Some(&tools)).unwrap();
    let without = engine.tokenize_turns(&turns[..1], None).unwrap();
    assert!(with.len() > without.len());
    vec![with, without, engine.tokenize_chat(&hello("")).unwrap()]
}

/// As long as a prompt may be.
fn long_conversations_fit() {
    let engine = engine("{% for m in messages %}{{ m.role ~ ': ' ~ m.content|trim }}{% endfor %}").unwrap();
    let text = "word ".repeat(50_000);
    assert!(engine.tokenize_chat(&hello(&text)).unwrap().len() > 50_000);
    println!("peak with a prompt of {} bytes: {} MiB", text.len(), peak_bytes() >> 20);
}

fn hello(text: &str) -> [ChatMessage; 1] {
    [ChatMessage { role: "user".into(), content: text.into() }]
}

fn engine(template: &str) -> Result<Engine, LoadError> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families/qwen3_moe");
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .filter(|(name, _)| name != "chat_template.jinja")
        .collect();
    files.push(("chat_template.jinja".into(), template.into()));
    Engine::load(&ModelFiles::in_memory("bomb", files).unwrap())
}

/// Of the child that took the most until now.
fn peak_bytes() -> u64 {
    usage(libc::RUSAGE_CHILDREN)
}

fn own_peak_bytes() -> u64 {
    usage(libc::RUSAGE_SELF)
}

fn usage(of: libc::c_int) -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a whole rusage, which the call fills and all of whose bit patterns are valid.
    let usage = unsafe {
        assert_eq!(libc::getrusage(of, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    usage.ru_maxrss as u64 * 1_024
}
