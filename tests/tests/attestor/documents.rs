//! Documents that their signer signed in a form that Intel does not issue: each is refused, however it is cut.

use contracts::Message;
use contracts::attestor::PostAuthority;
use tdx_simulator::{Profile, Signer};

use crate::bench::Bench;
use crate::evidence::{NOW, Part, World};

/// What is written in place of the first of a text, in TCB info and in the QE identity.
const TCB_INFO: &[(&str, &str)] = &[
    // Numbers.
    (r#""tcbType":0"#, r#""tcbType":00"#),
    (r#""tcbType":0"#, r#""tcbType":01"#),
    (r#""tcbType":0"#, r#""tcbType":-0"#),
    (r#""tcbType":0"#, r#""tcbType":0.0"#),
    (r#""tcbType":0"#, r#""tcbType":65536"#),
    (r#""tcbType":0"#, r#""tcbType":/"#),
    (r#""tcbType":0"#, r#""tcbType"::"#),
    (r#""tcbType":0"#, r#""tcbType":"0""#),
    (r#""tcbType":0"#, r#""tcbType":"#),
    (r#""tcbEvaluationDataNumber":"#, r#""tcbEvaluationDataNumber":0"#),
    (r#""tcbEvaluationDataNumber":"#, r#""tcbEvaluationDataNumber":4294967295"#),
    (r#""pcesvn":"#, r#""pcesvn":0"#),
    (r#""pcesvn":"#, r#""pcesvn":65535"#),
    (r#"{"svn":"#, r#"{"svn":0"#),
    (r#"{"svn":"#, r#"{"svn":255"#),
    (r#"{"svn":"#, r#"{"svn":-"#),
    (r#"{"isvsvn":"#, r#"{"isvsvn":0"#),
    (r#"{"isvsvn":"#, r#"{"isvsvn":255"#),
    // Hexadecimal.
    (r#""fmspc":"53"#, r#""fmspc":"5g"#),
    (r#""fmspc":"53"#, r#""fmspc":"5G"#),
    (r#""fmspc":"53"#, r#""fmspc":"5@"#),
    (r#""fmspc":"53"#, r#""fmspc":"5`"#),
    (r#""fmspc":"53"#, r#""fmspc":"5:"#),
    (r#""fmspc":"53"#, r#""fmspc":"5/"#),
    (r#""fmspc":"53"#, r#""fmspc":"5a"#),
    (r#""fmspc":"53"#, r#""fmspc":"5 "#),
    (r#""fmspc":"53"#, r#""fmspc":"53"5"#),
    (r#""FFFFFFFFFFFFFFFF""#, r#""FFFFFFFFFFFFFFFf""#),
    // Dates.
    (r#""issueDate":"20"#, r#""issueDate":"19"#),
    (r#""issueDate":"20"#, r#""issueDate":"2:"#),
    ("T", "t"),
    ("Z\"", "z\""),
    ("Z\"", "+\""),
    // Words and their order.
    (r#"{"id":"TDX""#, r#"{"id":"SGX""#),
    (r#""version":3"#, r#""version":2"#),
    (r#""tcbStatus":"UpToDate""#, r#""tcbStatus":"uptodate""#),
    (r#""tcbStatus":"UpToDate""#, r#""tcbStatus":"UpToDat""#),
    (r#""tcbStatus":"UpToDate""#, r#""tcbStatus":"""#),
    (r#""tcbStatus":"UpToDate""#, r#""tcbStatus":"Unknown""#),
    (r#","tdxtcbcomponents""#, r#", "tdxtcbcomponents""#),
    (r#","pceId""#, r#","x":1,"pceId""#),
    (r#"TDX_"#, r#"TDX-"#),
    (r#"{"svn":"#, r#"{"svn" :"#),
    (r#""category":"#, r#""category":{"#),
    (r#""category":"OS"#, r#""category":"{"#),
];

const QE_IDENTITY: &[(&str, &str)] = &[
    (r#"{"id":"TD_QE""#, r#"{"id":"QE""#),
    (r#""version":2"#, r#""version":4"#),
    (r#""isvprodid":2"#, r#""isvprodid":02"#),
    (r#""isvprodid":2"#, r#""isvprodid":65536"#),
    (r#""isvprodid":2"#, r#""isvprodid":"#),
    (r#""miscselect":"00000000""#, r#""miscselect":"0000000""#),
    (r#""miscselect":"00000000""#, r#""miscselect":"0000000x""#),
    (r#""FFFFFFFF""#, r#""ffffffff""#),
    (r#"{"isvsvn":"#, r#"{"isvsvn":65536"#),
    (r#""tcbStatus":"UpToDate""#, r#""tcbStatus":"SWHardeningNeeded""#),
    (r#""tcbLevels":["#, r#""tcbLevels":[],["#),
    (r#","tcbDate""#, r#","tcbdate""#),
];

/// What is added at the end, or left away there.
const ENDS: [&str; 5] = ["", "}", " ", "\0", "\n"];

#[test]
fn a_document_in_another_form_is_refused_though_its_signer_signed_it() {
    let bench = Bench::new();
    let world = World::new(&bench, [7; 32], Profile::default());
    for (part, edits) in [(Part::TcbInfo, TCB_INFO), (Part::QeIdentity, QE_IDENTITY)] {
        let sound = String::from_utf8(world.evidence.text(part).bytes.clone()).unwrap();
        assert!(world.contract(&bench, &world.evidence, part, NOW).is_ok());
        let replaced = edits.iter().map(|(from, to)| {
            assert!(sound.contains(from), "{from} is not in {sound}");
            (format!("{from} as {to}"), sound.replacen(from, to, 1))
        });
        let ended = ENDS.iter().map(|end| {
            let text = if end.is_empty() { &sound[..sound.len() - 1] } else { &sound };
            (format!("ending with {end:?}"), format!("{text}{end}"))
        });
        for (what, text) in replaced.chain(ended) {
            let mut evidence = world.evidence.clone();
            let changed = evidence.text_mut(part);
            changed.bytes = text.into_bytes();
            changed.signature = world.platform.sign_as(Signer::TcbSigner, &changed.bytes);
            let accepted = world.contract(&bench, &evidence, part, NOW);
            assert!(accepted.is_err(), "{part:?} with {what} is accepted");
        }
    }
}

/// Where a text is, behind so many bytes of itself.
fn place(bytes: &[u8], text: &[u8], behind: usize) -> usize {
    bytes.windows(text.len()).position(|window| window == text).unwrap() + behind
}

#[test]
fn an_authority_in_another_form_is_refused_though_the_root_signed_it() {
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    const KEY_USAGE: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x0f, 0x01, 0x01, 0xff, 0x04, 0x04, 0x03, 0x02];
    const BASIC_CONSTRAINTS: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x13, 0x01, 0x01, 0xff, 0x04];
    let bench = Bench::new();
    let world = World::new(&bench, [7; 32], Profile::default());
    for (part, signer) in [(Part::Issuer, Signer::PckIssuer), (Part::TcbSigner, Signer::TcbSigner)] {
        let sound = &world.evidence.text(part).bytes;
        assert!(world.contract(&bench, &world.evidence, part, NOW).is_ok());
        let key = world.platform.public_key(signer);
        for (what, at) in [
            ("another issuer", place(sound, COMMON_NAME, COMMON_NAME.len() + 2)),
            ("a key that is no point", place(sound, &key, 63)),
            ("a key whose x is another's", place(sound, &key, 31)),
            ("another curve", place(sound, &key, 0) - 5),
            ("other uses of its key", place(sound, KEY_USAGE, KEY_USAGE.len() + 1)),
            ("uses that may be passed over", place(sound, KEY_USAGE, 7)),
            ("other constraints", place(sound, BASIC_CONSTRAINTS, BASIC_CONSTRAINTS.len() + 2)),
            ("constraints that may be passed over", place(sound, BASIC_CONSTRAINTS, 7)),
            ("another last byte", sound.len() - 1),
            ("another version", 8),
        ] {
            let mut evidence = world.evidence.clone();
            let changed = evidence.text_mut(part);
            changed.bytes[at] ^= 1;
            changed.signature = world.platform.sign_as(part.signer(), &changed.bytes);
            let accepted = world.contract(&bench, &evidence, part, NOW);
            assert!(accepted.is_err(), "{part:?} with {what} is accepted");
            // Not even kept: what is checked under a key that is no point means nothing.
            let (start, messages, _) = world.forced(&evidence, part);
            for message in messages.iter().filter(|message| PostAuthority::from_cell(message).is_ok()) {
                let outcome = bench.send(&start, message.clone(), NOW);
                assert!(!outcome.succeeded, "{part:?} with {what} is kept");
            }
        }
    }
}
