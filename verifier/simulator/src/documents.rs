//! TCB info and QE identity as Intel writes them (PCS API v4): keys in its order, no spaces.

use time::OffsetDateTime;

use crate::profile::{Profile, SvnLevel, TcbLevel};

/// When every level was defined.
const TCB_DATE: &str = "2025-08-13T00:00:00Z";
/// What Intel says of the SGX components that have an SVN.
const SGX_DESCRIPTIONS: [&str; 8] = [
    r#","category":"BIOS","type":"Early Microcode Update""#,
    r#","category":"OS/VMM","type":"SGX Late Microcode Update""#,
    r#","category":"OS/VMM","type":"TXT SINIT""#,
    r#","category":"BIOS""#,
    r#","category":"BIOS""#,
    r#","category":"BIOS""#,
    "",
    r#","category":"OS/VMM","type":"SEAMLDR ACM""#,
];
const TDX_DESCRIPTIONS: [&str; 3] = [
    r#","category":"OS/VMM","type":"TDX Module""#,
    r#","category":"OS/VMM","type":"TDX Module""#,
    r#","category":"OS/VMM","type":"TDX Late Microcode Update""#,
];

pub(crate) fn tcb_info(profile: &Profile, from: OffsetDateTime, until: OffsetDateTime) -> String {
    let info = &profile.tcb_info;
    let any_module = r#""mrsigner":"000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000","attributes":"0000000000000000","attributesMask":"FFFFFFFFFFFFFFFF""#;
    let modules = join(&info.modules, |module| {
        let levels = join(&module.levels, svn_level);
        format!(r#"{{"id":"TDX_{:02X}",{any_module},"tcbLevels":[{levels}]}}"#, module.version)
    });
    format!(
        r#"{{"id":"TDX","version":3,"issueDate":"{}","nextUpdate":"{}","fmspc":"{}","pceId":"{:04X}","tcbType":0,"tcbEvaluationDataNumber":{},"tdxModule":{{{any_module}}},"tdxModuleIdentities":[{modules}],"tcbLevels":[{}]}}"#,
        rfc3339(from),
        rfc3339(until),
        hex::encode_upper(profile.fmspc),
        info.pce_id,
        info.evaluation_number,
        join(&info.levels, tcb_level),
    )
}

pub(crate) fn qe_identity(
    profile: &Profile,
    from: OffsetDateTime,
    until: OffsetDateTime,
    signer: &[u8; 32],
) -> String {
    let identity = &profile.qe_identity;
    format!(
        r#"{{"id":"TD_QE","version":2,"issueDate":"{}","nextUpdate":"{}","tcbEvaluationDataNumber":{},"miscselect":"00000000","miscselectMask":"FFFFFFFF","attributes":"11000000000000000000000000000000","attributesMask":"FBFFFFFFFFFFFFFF0000000000000000","mrsigner":"{}","isvprodid":2,"tcbLevels":[{}]}}"#,
        rfc3339(from),
        rfc3339(until),
        identity.evaluation_number,
        hex::encode_upper(signer),
        join(&identity.levels, svn_level),
    )
}

fn tcb_level(level: &TcbLevel) -> String {
    format!(
        r#"{{"tcb":{{"sgxtcbcomponents":[{}],"pcesvn":{},"tdxtcbcomponents":[{}]}},{}}}"#,
        components(&level.sgx, &SGX_DESCRIPTIONS),
        level.pce_svn,
        components(&level.tdx, &TDX_DESCRIPTIONS),
        status(level.status, &level.advisories),
    )
}

fn svn_level(level: &SvnLevel) -> String {
    format!(r#"{{"tcb":{{"isvsvn":{}}},{}}}"#, level.isv_svn, status(level.status, &level.advisories))
}

fn status(status: &str, advisories: &[u32]) -> String {
    let ids = join(advisories, |number| format!(r#""INTEL-SA-{number:05}""#));
    let advisories = if ids.is_empty() { ids } else { format!(r#","advisoryIDs":[{ids}]"#) };
    format!(r#""tcbDate":"{TCB_DATE}","tcbStatus":"{status}"{advisories}"#)
}

fn components(svns: &[u8; 16], descriptions: &[&str]) -> String {
    let descriptions = descriptions.iter().copied().chain(std::iter::repeat(""));
    let all: Vec<String> = svns
        .iter()
        .zip(descriptions)
        .map(|(svn, description)| format!(r#"{{"svn":{svn}{description}}}"#))
        .collect();
    all.join(",")
}

fn join<T>(items: &[T], text: impl Fn(&T) -> String) -> String {
    items.iter().map(text).collect::<Vec<_>>().join(",")
}

fn rfc3339(time: OffsetDateTime) -> String {
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}
