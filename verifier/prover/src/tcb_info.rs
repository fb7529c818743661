//! TCB info of one FMSPC (Intel PCS API v4, `GET /tdx/certification/v4/tcb`), read as `contracts/tcb_info.tolk` reads it.

use contracts::attestor::{
    Bytes, Fmspc, Levels, MAX_LEVELS, Serial, Svns, TcbInfo, TcbLevel, TdxModule, needs,
};
use contracts::{Ref, WireError};
use tycho_types::dict::Dict;

use crate::json::Issue;
use crate::text::{SignedText, Text, TextError};

const TWELVE_ZEROS: &str = concat!(
    r#"{"svn":0},{"svn":0},{"svn":0},{"svn":0},"#,
    r#"{"svn":0},{"svn":0},{"svn":0},{"svn":0},{"svn":0},{"svn":0},{"svn":0},{"svn":0}]"#
);
const EIGHT_ZEROS: &str =
    r#"{"svn":0},{"svn":0},{"svn":0},{"svn":0},{"svn":0},{"svn":0},{"svn":0},{"svn":0}]"#;

/// TCB info in the one form that Intel signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcbInfoDocument {
    pub signed: SignedText,
    pub issue: Issue,
    pub fmspc: Fmspc,
    pub pce_id: u16,
    /// `TEE_TCB_SVN[1]` and the identity for it; 0 is `tdxModule`.
    pub modules: Vec<(u8, Module)>,
    /// Highest first.
    pub levels: Vec<TcbLevel>,
}

/// Identity of a TDX module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    pub mrsigner: Bytes<48>,
    pub attributes: Bytes<8>,
    pub attributes_mask: Bytes<8>,
    /// Empty for `tdxModule`.
    pub levels: Vec<contracts::attestor::SvnLevel>,
}

impl TcbInfoDocument {
    /// Reads the signed JSON text whole. Does not check its signature.
    ///
    /// # Errors
    /// [`TextError`]
    pub fn parse(json: &str) -> Result<Self, TextError> {
        let mut text = Text::new("the TCB info", json.as_bytes());
        text.expect("{\"id\":\"TDX\",\"version\":3,\"issueDate\":\"")?;
        let issue_date = text.date()?;
        text.expect("\",\"nextUpdate\":\"")?;
        let next_update = text.date()?;
        text.expect("\",\"fmspc\":\"")?;
        let fmspc = Bytes(text.hex()?);
        text.expect("\",\"pceId\":\"")?;
        let pce_id = u16::from_be_bytes(text.hex()?);
        text.expect("\",\"tcbType\":")?;
        text.number(0xffff)?;
        text.expect(",\"tcbEvaluationDataNumber\":")?;
        let evaluation_number = text.number(u32::MAX)?;
        text.expect(",\"tdxModule\":{\"mrsigner\":\"")?;
        let modules = modules(&mut text)?;
        let levels = levels(&mut text)?;
        text.expect("}")?;
        let issue = Issue { issue_date, next_update, evaluation_number };
        Ok(Self { signed: text.finish()?, issue, fmspc, pce_id, modules, levels })
    }

    /// What the contract keeps of it. `signer_not_after` is Unix time.
    ///
    /// # Errors
    /// [`WireError`]: never for what [`Self::parse`] returned.
    pub fn to_storage(&self, signer_serial: Serial, signer_not_after: u32) -> Result<TcbInfo, WireError> {
        let mut modules = Dict::new();
        for (version, module) in &self.modules {
            let levels = match module.levels.is_empty() {
                true => None,
                false => Some(Ref::new(Levels(module.levels.clone()))?),
            };
            let Module { mrsigner, attributes, attributes_mask, .. } = *module;
            let module = Ref::new(TdxModule { mrsigner, attributes, attributes_mask, levels })?;
            modules.set(*version, module).map_err(|source| WireError::Build { what: "TcbInfo", source })?;
        }
        let life = self.issue.life(signer_serial, signer_not_after);
        Ok(TcbInfo { life, pce_id: self.pce_id, modules, levels: Ref::new(Levels(self.levels.clone()))? })
    }
}

/// From the first module's signer to the opening bracket of the levels.
fn modules(text: &mut Text<'_>) -> Result<Vec<(u8, Module)>, TextError> {
    let mut modules = vec![(0, module(text, false)?)];
    text.expect(",\"tdxModuleIdentities\":[")?;
    if text.try_expect("],\"tcbLevels\":[") {
        return Ok(modules);
    }
    loop {
        text.expect("{\"id\":\"TDX_")?;
        let at_fault = text.error("a TDX module version that has no identity yet");
        let [version] = text.hex()?;
        text.expect("\",\"mrsigner\":\"")?;
        let module = module(text, true)?;
        if modules.iter().any(|(known, _)| *known == version) {
            return Err(at_fault);
        }
        modules.push((version, module));
        if !text.try_expect(",") {
            break;
        }
    }
    text.expect("],\"tcbLevels\":[")?;
    Ok(modules)
}

/// From the value of `mrsigner` to the closing brace.
fn module(text: &mut Text<'_>, has_levels: bool) -> Result<Module, TextError> {
    let mut mrsigner = [0; 48];
    for part in mrsigner.as_chunks_mut::<16>().0 {
        *part = text.hex()?;
    }
    text.expect("\",\"attributes\":\"")?;
    let attributes = Bytes(text.hex()?);
    text.expect("\",\"attributesMask\":\"")?;
    let attributes_mask = Bytes(text.hex()?);
    let mut levels = Vec::new();
    if has_levels {
        text.expect("\",\"tcbLevels\":[")?;
        levels = text.svn_levels(0xff, needs::OUT_OF_DATE)?;
        text.expect("}")?;
    } else {
        text.expect("\"}")?;
    }
    Ok(Module { mrsigner: Bytes(mrsigner), attributes, attributes_mask, levels })
}

/// Every level with the closing bracket.
fn levels(text: &mut Text<'_>) -> Result<Vec<TcbLevel>, TextError> {
    let mut levels: Vec<TcbLevel> = Vec::new();
    loop {
        let at_fault = text.error("TCB levels highest first");
        text.expect("{\"tcb\":{\"sgxtcbcomponents\":[")?;
        let sgx = components(text)?;
        text.expect(",\"pcesvn\":")?;
        let pce_svn = text.number(0xffff)? as u16;
        text.expect(",\"tdxtcbcomponents\":[")?;
        let tdx = components(text)?;
        text.expect("},\"tcbDate\":\"")?;
        text.date()?;
        text.expect("\",\"tcbStatus\":\"")?;
        let needs = text.status()?;
        let advisories = text.advisories_digest()?;
        let is_in_order =
            levels.last().is_none_or(|last| (sgx, pce_svn, tdx) <= (last.sgx, last.pce_svn, last.tdx));
        if !is_in_order || levels.len() == MAX_LEVELS {
            return Err(at_fault);
        }
        levels.push(TcbLevel { sgx, pce_svn, tdx, needs, advisories });
        if !text.try_expect(",") {
            break;
        }
    }
    text.expect("]")?;
    Ok(levels)
}

/// Sixteen components with the closing bracket. Plain zeros at the end are one bite where the contract takes them so.
fn components(text: &mut Text<'_>) -> Result<Svns, TextError> {
    let mut svns = [0; 16];
    for (position, svn) in svns.iter_mut().enumerate() {
        if (position == 4 && text.try_expect(TWELVE_ZEROS)) || (position == 8 && text.try_expect(EIGHT_ZEROS))
        {
            break;
        }
        *svn = component(text, if position == 15 { b']' } else { b',' })?;
    }
    Ok(Bytes(svns))
}

/// One component and the byte after it, as one bite. A description ends its piece: the contract does not read it.
fn component(text: &mut Text<'_>, separator: u8) -> Result<u8, TextError> {
    const EXPECTED: &str = "a component of at most 127 bytes";
    let at_fault = text.error(EXPECTED);
    let length = text.rest().iter().position(|byte| *byte == b'}').ok_or_else(|| at_fault.clone())?;
    let component = text.take(length + 2, EXPECTED)?;
    let digits_and_rest = component.strip_prefix(b"{\"svn\":").ok_or_else(|| at_fault.clone())?;
    let count = digits_and_rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = digits_and_rest.split_at(count);
    let svn = str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u8>().ok());
    let svn = svn.filter(|_| count == 1 || digits.first() != Some(&b'0')).ok_or_else(|| at_fault.clone())?;
    if rest == [b'}', separator] {
        return Ok(svn);
    }
    text.end_piece();
    let is_description = rest.starts_with(b",\"category\":\"") && !rest.contains(&b'{');
    if is_description && rest.ends_with(&[b'}', separator]) { Ok(svn) } else { Err(at_fault) }
}
