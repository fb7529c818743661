//! What a simulated platform is like. The default is one without fault that looks like Intel's.

use crate::FMSPC;

/// What is wrong with a platform, for tests of the verifier. The default is a platform without fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// The TD runs with the debug bit.
    pub debug_td: bool,
    /// The platform's SVNs are below every acceptable TCB level.
    pub old_svn: bool,
    /// The PCK certificate is on the revocation list.
    pub revoked_pck: bool,
    /// TCB info names another PCE than the certificate.
    pub other_pce: bool,
}

/// TUD.DEBUG, bit 0 of the TD attributes.
pub const TD_DEBUG: u64 = 1;
/// SEC.SEPT_VE_DISABLE, bit 28 of the TD attributes.
pub const TD_SEPT_VE_DISABLE: u64 = 1 << 28;

/// Everything about a platform that tests vary. Platforms made from one seed share root, TCB signer and, where
/// `issuer` and `issuer_key` agree, the issuer of their PCK certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Which machine: it has its own PPID and keys.
    pub machine: u32,
    pub issuer: PckIssuer,
    /// Which of the issuer's keys, all under one name.
    pub issuer_key: u8,
    pub fmspc: [u8; 6],
    /// The PCEID in the certificate.
    pub pce_id: u16,
    /// Component 1 first. From 128 on its INTEGER takes two bytes.
    pub component_svns: [u8; 16],
    pub pce_svn: u16,
    /// Of the quoting enclave.
    pub qe_svn: u16,
    pub format: QuoteFormat,
    /// TEE_TCB_SVN: of the module, the module's version, of late microcode, …
    pub tee_tcb_svn: [u8; 16],
    /// TEE_TCB_SVN2 of 1.5 reports: since a module update without a restart.
    pub tee_tcb_svn2: [u8; 16],
    /// TD attributes, little-endian as a number.
    pub td_attributes: u64,
    pub periods: Periods,
    pub tcb_info: TcbInfoProfile,
    pub qe_identity: QeIdentityProfile,
    pub revocations: Revocations,
}

/// Who issues PCK certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PckIssuer {
    /// For machines with several packages; its certificates state a platform instance.
    Platform,
    Processor,
}

/// Quote format and report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuoteFormat {
    /// Version 4, TD report 1.0.
    V4,
    /// Version 5, TD report 1.0.
    V5Td10,
    /// Version 5, TD report 1.5.
    V5Td15,
    /// Version 5, TD report 1.5 extended.
    V5Td15Ex,
}

/// From when until when something holds, in Unix seconds. What is nothing has its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Period {
    pub from_s: Option<u64>,
    pub until_s: Option<u64>,
}

/// Defaults: authorities and signer from 2018 to 2048, the PCK certificate from a day before the platform is made for
/// seven years, lists and documents from a day before for a month after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Periods {
    pub issuer: Period,
    pub tcb_signer: Period,
    pub pck: Period,
    pub root_crl: Period,
    pub pck_crl: Period,
    pub tcb_info: Period,
    pub qe_identity: Period,
}

/// What TCB info says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcbInfoProfile {
    pub evaluation_number: u32,
    /// The PCEID it is for.
    pub pce_id: u16,
    /// In the order they are written.
    pub modules: Vec<TdxModule>,
    /// In the order they are written; Intel writes the highest first.
    pub levels: Vec<TcbLevel>,
}

/// Identity of one version of the TDX module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdxModule {
    pub version: u8,
    pub levels: Vec<SvnLevel>,
}

/// What QE identity says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QeIdentityProfile {
    pub evaluation_number: u32,
    pub levels: Vec<SvnLevel>,
}

/// A TCB level of a platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcbLevel {
    pub sgx: [u8; 16],
    pub pce_svn: u16,
    pub tdx: [u8; 16],
    /// As Intel spells it.
    pub status: &'static str,
    /// ddddd of INTEL-SA-ddddd.
    pub advisories: Vec<u32>,
}

/// A TCB level of a module or the quoting enclave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SvnLevel {
    pub isv_svn: u16,
    /// As Intel spells it.
    pub status: &'static str,
    /// ddddd of INTEL-SA-ddddd.
    pub advisories: Vec<u32>,
}

/// What the revocation lists say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocations {
    /// Of both lists; below 128.
    pub number: u8,
    /// This platform's PCK certificate, on its issuer's list.
    pub pck: bool,
    /// On the root's list.
    pub issuer: bool,
    /// On the root's list.
    pub tcb_signer: bool,
    /// On its own list.
    pub root: bool,
    /// More serials on the issuer's list.
    pub more_by_issuer: Vec<[u8; 20]>,
    /// More serials on the root's list.
    pub more_by_root: Vec<[u8; 20]>,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            machine: 0,
            issuer: PckIssuer::Platform,
            issuer_key: 0,
            fmspc: FMSPC,
            pce_id: 0,
            component_svns: first([7, 7, 2, 2, 4, 1, 0, 5]),
            pce_svn: 13,
            qe_svn: 4,
            format: QuoteFormat::V4,
            tee_tcb_svn: first([6, 1, 7]),
            tee_tcb_svn2: first([6, 1, 7]),
            td_attributes: TD_SEPT_VE_DISABLE,
            periods: Periods::default(),
            tcb_info: TcbInfoProfile::default(),
            qe_identity: QeIdentityProfile::default(),
            revocations: Revocations::default(),
        }
    }
}

impl From<Faults> for Profile {
    fn from(faults: Faults) -> Self {
        let mut profile = Self::default();
        if faults.debug_td {
            profile.td_attributes |= TD_DEBUG;
        }
        if faults.old_svn {
            profile.component_svns = [0; 16];
            profile.tee_tcb_svn = first([2, 1]);
            profile.tee_tcb_svn2 = profile.tee_tcb_svn;
        }
        profile.revocations.pck = faults.revoked_pck;
        profile.tcb_info.pce_id = u16::from(faults.other_pce);
        profile
    }
}

impl Default for TcbInfoProfile {
    fn default() -> Self {
        let level = |sgx, pce_svn, tdx, status, advisories: &[u32]| TcbLevel {
            sgx: first::<8>(sgx),
            pce_svn,
            tdx: first::<3>(tdx),
            status,
            advisories: advisories.to_vec(),
        };
        let svn = |isv_svn, status, advisories: &[u32]| SvnLevel {
            isv_svn,
            status,
            advisories: advisories.to_vec(),
        };
        Self {
            evaluation_number: 1,
            pce_id: 0,
            modules: vec![
                TdxModule {
                    version: 3,
                    levels: vec![svn(5, "UpToDate", &[]), svn(3, "OutOfDate", &[90_001, 90_002])],
                },
                TdxModule {
                    version: 1,
                    levels: vec![
                        svn(6, "UpToDate", &[]),
                        svn(4, "OutOfDate", &[90_001]),
                        svn(2, "OutOfDate", &[90_001, 90_003]),
                    ],
                },
            ],
            levels: vec![
                level([7, 7, 2, 2, 4, 1, 0, 5], 13, [5, 0, 7], "UpToDate", &[]),
                level([6, 6, 2, 2, 4, 1, 0, 5], 13, [5, 0, 6], "SWHardeningNeeded", &[90_010]),
                level([2, 2, 2, 2, 3, 1, 0, 5], 11, [5, 0, 2], "OutOfDate", &[90_010, 90_011, 90_012]),
                level([0; 8], 0, [0; 3], "OutOfDate", &[90_010, 90_011, 90_012, 90_013, 90_014]),
            ],
        }
    }
}

impl Default for QeIdentityProfile {
    fn default() -> Self {
        let level = |isv_svn, status, advisories| SvnLevel { isv_svn, status, advisories };
        Self {
            evaluation_number: 1,
            levels: vec![level(4, "UpToDate", Vec::new()), level(1, "OutOfDate", vec![90_020])],
        }
    }
}

impl Default for Revocations {
    fn default() -> Self {
        Self {
            number: 1,
            pck: false,
            issuer: false,
            tcb_signer: false,
            root: false,
            more_by_issuer: Vec::new(),
            more_by_root: Vec::new(),
        }
    }
}

fn first<const N: usize>(values: [u8; N]) -> [u8; 16] {
    let mut all = [0; 16];
    all[..N].copy_from_slice(&values);
    all
}
