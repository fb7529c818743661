//! The Attestor: Intel's certificate authorities, revocation lists, TCB info and QE identity, and quotes verified
//! against them.

use std::fmt;

use tycho_types::cell::{Cell, CellBuilder, CellContext, CellFamily, CellSlice, HashBytes, Load, Store};
use tycho_types::dict::{Dict, DictKey, LoadDictKey, StoreDictKey};
use tycho_types::error::Error as CellError;
use tycho_types::models::StdAddr;

use crate::wire::{Ref, WireError, messages, to_cell};

/// Most pieces a text may be cut into.
pub const MAX_PIECES: usize = 250;
/// Most bytes in a piece.
pub const MAX_PIECE_BYTES: usize = 127;
/// Most levels of one list in TCB info, a module identity or a QE identity.
pub const MAX_LEVELS: usize = 128;
/// Numbers in one cell of [`Advisories`].
const ADVISORIES_PER_CELL: usize = 25;

/// Bits of [`TcbLevel::needs`] and [`VerifiedReport::needs`]: what a status asks for besides being up to date.
pub mod needs {
    pub const OUT_OF_DATE: u8 = 1;
    pub const CONFIGURATION: u8 = 2;
    pub const SW_HARDENING: u8 = 4;
    pub const REVOKED: u8 = 128;
}

/// `N` bytes as they stand: a serial number, a set of SVNs, a register.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes<const N: usize>(pub [u8; N]);

/// Serial number of a certificate, without the zero byte that DER puts before a high bit.
pub type Serial = Bytes<20>;
/// SubjectKeyIdentifier of a certificate.
pub type KeyId = Bytes<20>;
/// Family, model, stepping, platform type and custom SKU of a processor.
pub type Fmspc = Bytes<6>;
/// Sixteen security version numbers, component 1 first.
pub type Svns = Bytes<16>;

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct AttestorStorage {
    pub trust: Ref<Trust>,
    /// SHA-256 of the public key x ‖ y → authority.
    pub authorities: Dict<HashBytes, Ref<Authority>>,
    pub root_crl: Option<Ref<Crl>>,
    pub collateral: Ref<Collateral>,
}

impl AttestorStorage {
    /// As deployed: nothing posted yet.
    pub fn initial(trust: Trust) -> Result<Self, WireError> {
        Ok(Self {
            trust: Ref::new(trust)?,
            authorities: Dict::new(),
            root_crl: None,
            collateral: Ref::new(Collateral { qe_identity: None, tcb_infos: Dict::new() })?,
        })
    }
}

/// The root authority, and who may be what under it.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct Trust {
    pub root_x: HashBytes,
    pub root_y: HashBytes,
    /// SHA-256 of the DER Name.
    pub root_subject: HashBytes,
    pub root_serial: Serial,
    pub roles: Ref<RoleNames>,
}

/// SHA-256 of DER Names, and what PCK certificates have in common.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct RoleNames {
    pub platform_ca: HashBytes,
    pub processor_ca: HashBytes,
    pub tcb_signer: HashBytes,
    /// The DER Name that is every PCK certificate's subject, in one piece.
    pub pck_subject: Ref<Pieces>,
    /// The extension with the CRL distribution points of certificates by the platform CA, in one piece.
    pub platform_points: Ref<Pieces>,
    /// The same of the processor CA's.
    pub processor_points: Ref<Pieces>,
}

/// What an [`Authority`] may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// PCK certificates and their revocation list.
    PckIssuer = 1,
    /// TCB info and QE identity.
    TcbSigner = 2,
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct Authority {
    pub role: Role,
    pub x: HashBytes,
    pub y: HashBytes,
    /// Unix time.
    pub not_before: u32,
    /// Unix time.
    pub not_after: u32,
    pub serial: Serial,
    /// Its certificate's subject key identifier.
    pub key_id: KeyId,
    pub crl: Option<Ref<Crl>>,
    /// Its DER Name, in one piece.
    pub name: Ref<Pieces>,
    /// Of the PCK certificates it issues, as [`RoleNames`] has it.
    pub pck_subject: Option<Ref<Pieces>>,
    /// Of the PCK certificates it issues, as [`RoleNames`] has it.
    pub points: Option<Ref<Pieces>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct Crl {
    /// Unix time.
    pub this_update: u32,
    /// Unix time.
    pub next_update: u32,
    pub number: u64,
    pub revoked: Dict<Serial, bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct Collateral {
    pub qe_identity: Option<Ref<QeIdentity>>,
    pub tcb_infos: Dict<Fmspc, Ref<TcbInfo>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Store, Load)]
pub struct DocumentLife {
    /// Unix time.
    pub issue_date: u32,
    /// Unix time.
    pub next_update: u32,
    pub evaluation_number: u32,
    pub signer_serial: Serial,
    /// Unix time.
    pub signer_not_after: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct TcbInfo {
    pub life: DocumentLife,
    pub pce_id: u16,
    /// `TEE_TCB_SVN[1]` → identity; 0 is `tdxModule`.
    pub modules: Dict<u8, Ref<TdxModule>>,
    pub levels: Ref<Levels<TcbLevel>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct TdxModule {
    pub mrsigner: Bytes<48>,
    pub attributes: Bytes<8>,
    pub attributes_mask: Bytes<8>,
    pub levels: Option<Ref<Levels<SvnLevel>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Store, Load)]
pub struct TcbLevel {
    pub sgx: Svns,
    pub pce_svn: u16,
    pub tdx: Svns,
    /// Zero for `UpToDate`, else of [`needs`].
    pub needs: u8,
    /// Hash of the [`Advisories`] cell; zero for none.
    pub advisories: HashBytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Store, Load)]
pub struct SvnLevel {
    pub isv_svn: u16,
    /// Zero for `UpToDate`, else of [`needs`].
    pub needs: u8,
    /// Hash of the [`Advisories`] cell; zero for none.
    pub advisories: HashBytes,
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct QeIdentity {
    pub life: DocumentLife,
    pub miscselect: u32,
    pub miscselect_mask: u32,
    pub attributes: Bytes<16>,
    pub attributes_mask: Bytes<16>,
    pub mrsigner: HashBytes,
    pub isv_prod_id: u16,
    pub levels: Ref<Levels<SvnLevel>>,
}

/// Levels from the highest down, each in a cell that refers to the next. At least one, at most [`MAX_LEVELS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels<T>(pub Vec<T>);

/// The ddddd of INTEL-SA-ddddd as characters, in Intel's order. Never stored: levels hold the hash of its cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advisories(pub Vec<[u8; 5]>);

impl Advisories {
    /// What levels hold: zero for none, else the hash of the cell.
    pub fn digest(&self) -> Result<HashBytes, WireError> {
        if self.0.is_empty() { Ok(HashBytes::ZERO) } else { Ok(*to_cell(self)?.repr_hash()) }
    }
}

/// A signed text cut into 1 to [`MAX_PIECES`] pieces of 1 to [`MAX_PIECE_BYTES`] bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Pieces(Vec<Vec<u8>>);

/// A text cannot be carried in these pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PiecesError {
    #[error(
        "a text in {count} pieces; the contract reads 1 to {MAX_PIECES}, so whoever wrote so long a text is at fault"
    )]
    Count { count: usize },
    #[error(
        "a piece of {bytes} bytes; a cell takes 1 to {MAX_PIECE_BYTES}, so whoever cut the text is at fault"
    )]
    Length { bytes: usize },
}

impl Pieces {
    /// # Errors
    /// [`PiecesError`]: too many pieces, none, or one that is empty or too long.
    pub fn new(pieces: Vec<Vec<u8>>) -> Result<Self, PiecesError> {
        if pieces.is_empty() || pieces.len() > MAX_PIECES {
            return Err(PiecesError::Count { count: pieces.len() });
        }
        match pieces.iter().map(Vec::len).find(|bytes| !(1..=MAX_PIECE_BYTES).contains(bytes)) {
            Some(bytes) => Err(PiecesError::Length { bytes }),
            None => Ok(Self(pieces)),
        }
    }

    pub fn as_slice(&self) -> &[Vec<u8>] {
        &self.0
    }

    /// The text they are pieces of.
    pub fn concat(&self) -> Vec<u8> {
        self.0.concat()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct P256Signature {
    pub r: HashBytes,
    pub s: HashBytes,
    pub witness: Ref<P256Witness>,
}

/// What the contract needs besides a signature to check it; `docs/p256.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Store, Load)]
pub struct P256Witness {
    /// A point, compressed (SEC 1 §2.3.3), and the scalar it is the generator's multiple by.
    pub shift: Bytes<65>,
    /// Of the line through the public key and that point.
    pub slope: HashBytes,
}

/// What varies in a quote. The contract puts the rest around it; `prover::statement` gives the whole texts back.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct QuoteProof {
    /// The attestation key.
    pub key_x: HashBytes,
    pub key_y: HashBytes,
    /// The quoting enclave's.
    pub authentication_data: HashBytes,
    pub td: Ref<TdStatement>,
    pub qe: Ref<QeStatement>,
    pub pck: Ref<PckStatement>,
}

/// Format and report of a quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum TdFormat {
    V4 = 0,
    V5Td10 = 1,
    V5Td15 = 2,
    V5Td15Ex = 3,
}

/// Of header and report (Intel, *TDX DCAP Quoting Library API*, A.3). MRSIGNERSEAM and MRSERVICETD are zero.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct TdStatement {
    pub format: TdFormat,
    /// Bytes 8 to 11 of the header.
    pub versions: Bytes<4>,
    pub user_data: Bytes<20>,
    pub tee_tcb_svn: Svns,
    pub mrseam: Bytes<48>,
    pub seam_attributes: Bytes<8>,
    pub td_attributes: Bytes<8>,
    pub xfam: Bytes<8>,
    pub measured: Ref<TdMeasured>,
    /// Where it is not zero.
    pub configuration: Option<Ref<TdConfiguration>>,
    /// TEE_TCB_SVN2 and, of an extended report, the last 237 bytes: 110 with it, 127 in a piece of their own.
    pub extension: Option<Ref<Pieces>>,
    pub signature: Ref<P256Signature>,
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct TdMeasured {
    pub mrtd: Bytes<48>,
    pub rtmr0: Bytes<48>,
    pub rest: Ref<TdRegisters>,
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct TdRegisters {
    pub rtmr1: Bytes<48>,
    pub rtmr2: Bytes<48>,
    pub rest: Ref<TdLast>,
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct TdLast {
    pub rtmr3: Bytes<48>,
    pub report_data: Bytes<64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct TdConfiguration {
    pub mrconfigid: Bytes<48>,
    /// Where it is not zero.
    pub owner: Option<Ref<TdOwner>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct TdOwner {
    pub mrowner: Bytes<48>,
    pub mrownerconfig: Bytes<48>,
}

/// Of the quoting enclave's report. What it reserves is zero.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct QeStatement {
    pub cpu_svn: Svns,
    pub miscselect: Bytes<4>,
    pub attributes: Bytes<16>,
    pub mrenclave: HashBytes,
    pub mrsigner: HashBytes,
    /// Little-endian.
    pub isv_prod_id: Bytes<2>,
    /// Little-endian.
    pub isv_svn: Bytes<2>,
    pub signature: Ref<P256Signature>,
}

/// Of a PCK certificate.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct PckStatement {
    pub x: HashBytes,
    pub y: HashBytes,
    /// In DER.
    pub validity: Bytes<32>,
    pub serial: Serial,
    /// The extension with the CRL distribution points, in one piece, where it is not its issuer's usual one.
    pub points: Option<Ref<Pieces>>,
    pub platform: Ref<PckPlatform>,
    pub signature: Ref<P256Signature>,
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct PckPlatform {
    /// SHA-256 of the issuer's public key x ‖ y.
    pub issuer: HashBytes,
    pub key_id: KeyId,
    pub ppid: Bytes<16>,
    pub svns: Svns,
    pub pce_svn: u16,
    pub pce_id: u16,
    pub fmspc: Fmspc,
    pub sgx_type: u8,
    /// In certificates by the platform CA.
    pub instance: Option<PckInstance>,
}

/// Which machine, and how it is configured: each flag zero or 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Store, Load)]
pub struct PckInstance {
    pub id: Bytes<16>,
    pub dynamic_platform: u8,
    pub cached_keys: u8,
    pub smt_enabled: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct VerifiedReport {
    pub measurement: HashBytes,
    pub report_data: Bytes<64>,
    /// Of [`needs`], over the platform's, the module's and the quoting enclave's level.
    pub needs: u8,
    /// Unix time: the first end among certificates, revocation lists, TCB info and QE identity.
    pub expires_at: u32,
    /// Of the PCK certificate.
    pub serial: Serial,
    pub origin: Ref<QuoteOrigin>,
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct QuoteOrigin {
    /// SHA-256 of header and report.
    pub quote_digest: HashBytes,
    /// Zero, or SHA-256 over the levels' `advisories` that are not zero.
    pub advisories: HashBytes,
    /// Who issued the PCK certificate: SHA-256 of its public key x ‖ y.
    pub authority: HashBytes,
    pub ppid: Bytes<16>,
    pub fmspc: Fmspc,
}

messages! {
    /// Anyone. The answer carries the rest of the value; refused, the message bounces.
    "verify_quote" "#43480501" VerifyQuote {
        query_id: u64,
        answer_to: StdAddr,
        quote: Ref<QuoteProof>,
        /// Comes back with the answer.
        payload: Cell,
    }
    /// Attestor to `answer_to`.
    "quote_verified" "#43480502" QuoteVerified {
        query_id: u64,
        requester: StdAddr,
        report: Ref<VerifiedReport>,
        payload: Cell,
    }
    /// Anyone: a certificate signed by the root.
    "post_authority" "#43480503" PostAuthority { query_id: u64, certificate: Ref<Pieces>, signature: Ref<P256Signature> }
    /// Anyone.
    "post_crl" "#43480504" PostCrl {
        query_id: u64,
        /// SHA-256 of the issuer's public key x ‖ y; zero for the root.
        issuer: HashBytes,
        list: Ref<Pieces>,
        signature: Ref<P256Signature>,
        /// The serials that the list names, each true; the contract holds it to be exactly those.
        revoked: Dict<Serial, bool>,
    }
    /// Anyone.
    "post_tcb_info" "#43480505" PostTcbInfo {
        query_id: u64,
        /// SHA-256 of the signer's public key x ‖ y.
        signer: HashBytes,
        document: Ref<Pieces>,
        signature: Ref<P256Signature>,
    }
    /// Anyone.
    "post_qe_identity" "#43480506" PostQeIdentity {
        query_id: u64,
        /// SHA-256 of the signer's public key x ‖ y.
        signer: HashBytes,
        document: Ref<Pieces>,
        signature: Ref<P256Signature>,
    }
    /// Anyone, for a serial on the authority's revocation list.
    "report_revocation" "#43480507" ReportRevocation { query_id: u64, authority: HashBytes, serial: Serial, worker: StdAddr }
    /// Attestor to the Worker.
    "certificate_revoked" "#43480508" CertificateRevoked { query_id: u64, authority: HashBytes, serial: Serial }
}

impl<const N: usize> fmt::Debug for Bytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl<const N: usize> Store for Bytes<N> {
    fn store_into(&self, builder: &mut CellBuilder, _: &dyn CellContext) -> Result<(), CellError> {
        builder.store_raw(&self.0, Self::BITS)
    }
}

impl<'a, const N: usize> Load<'a> for Bytes<N> {
    fn load_from(slice: &mut CellSlice<'a>) -> Result<Self, CellError> {
        let mut bytes = [0; N];
        slice.load_raw(&mut bytes, Self::BITS)?;
        Ok(Self(bytes))
    }
}

impl<const N: usize> DictKey for Bytes<N> {
    const BITS: u16 = (N * 8) as u16;
}

impl<const N: usize> StoreDictKey for Bytes<N> {
    fn store_into_data(&self, data: &mut tycho_types::cell::CellDataBuilder) -> Result<(), CellError> {
        data.store_raw(&self.0, Self::BITS)
    }
}

impl<const N: usize> LoadDictKey for Bytes<N> {
    fn load_from_data(data: &tycho_types::cell::CellDataBuilder) -> Option<Self> {
        data.raw_data().first_chunk().map(|bytes| Self(*bytes))
    }
}

impl Store for Role {
    fn store_into(&self, builder: &mut CellBuilder, _: &dyn CellContext) -> Result<(), CellError> {
        builder.store_u8(*self as u8)
    }
}

impl<'a> Load<'a> for Role {
    fn load_from(slice: &mut CellSlice<'a>) -> Result<Self, CellError> {
        match slice.load_u8()? {
            1 => Ok(Self::PckIssuer),
            2 => Ok(Self::TcbSigner),
            _ => Err(CellError::InvalidData),
        }
    }
}

impl Store for TdFormat {
    fn store_into(&self, builder: &mut CellBuilder, _: &dyn CellContext) -> Result<(), CellError> {
        builder.store_u8(*self as u8)
    }
}

impl<'a> Load<'a> for TdFormat {
    fn load_from(slice: &mut CellSlice<'a>) -> Result<Self, CellError> {
        match slice.load_u8()? {
            0 => Ok(Self::V4),
            1 => Ok(Self::V5Td10),
            2 => Ok(Self::V5Td15),
            3 => Ok(Self::V5Td15Ex),
            _ => Err(CellError::InvalidData),
        }
    }
}

/// A text is long, and its hash says more in a log.
impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: usize = self.0.iter().map(Vec::len).sum();
        write!(f, "Pieces({bytes} bytes in {})", self.0.len())
    }
}

impl Store for Pieces {
    fn store_into(&self, builder: &mut CellBuilder, _: &dyn CellContext) -> Result<(), CellError> {
        let (first, rest) = self.0.split_first().ok_or(CellError::InvalidData)?;
        let mut next = None;
        for piece in rest.iter().rev() {
            let mut cell = CellBuilder::new();
            store_piece(&mut cell, piece, next)?;
            next = Some(cell.build()?);
        }
        store_piece(builder, first, next)
    }
}

impl<'a> Load<'a> for Pieces {
    fn load_from(slice: &mut CellSlice<'a>) -> Result<Self, CellError> {
        let mut pieces = Vec::new();
        let mut next = load_piece(slice, &mut pieces)?;
        while let Some(cell) = next {
            next = load_piece(&mut cell.as_slice()?, &mut pieces)?;
        }
        Ok(Self(pieces))
    }
}

impl<T: Store> Store for Levels<T> {
    fn store_into(&self, builder: &mut CellBuilder, context: &dyn CellContext) -> Result<(), CellError> {
        let (first, rest) = self.0.split_first().ok_or(CellError::InvalidData)?;
        let mut next: Option<Cell> = None;
        for level in rest.iter().rev() {
            let mut cell = CellBuilder::new();
            level.store_into(&mut cell, context)?;
            next.store_into(&mut cell, context)?;
            next = Some(cell.build()?);
        }
        first.store_into(builder, context)?;
        next.store_into(builder, context)
    }
}

impl<'a, T: for<'b> Load<'b>> Load<'a> for Levels<T> {
    fn load_from(slice: &mut CellSlice<'a>) -> Result<Self, CellError> {
        let mut levels = vec![T::load_from(slice)?];
        let mut next = Option::<Cell>::load_from(slice)?;
        while let Some(cell) = next {
            if levels.len() == MAX_LEVELS {
                return Err(CellError::InvalidData);
            }
            let mut inner = cell.as_slice()?;
            levels.push(T::load_from(&mut inner)?);
            next = Option::<Cell>::load_from(&mut inner)?;
            if !inner.is_empty() {
                return Err(CellError::InvalidData);
            }
        }
        Ok(Self(levels))
    }
}

impl Store for Advisories {
    fn store_into(&self, builder: &mut CellBuilder, _: &dyn CellContext) -> Result<(), CellError> {
        let mut cells = self.0.chunks(ADVISORIES_PER_CELL).peekable();
        let mut earlier: Option<Cell> = None;
        while let Some(numbers) = cells.next() {
            if cells.peek().is_none() {
                return store_advisories(builder, numbers, earlier);
            }
            let mut cell = CellBuilder::new();
            store_advisories(&mut cell, numbers, earlier)?;
            earlier = Some(cell.build()?);
        }
        builder.store_bit_zero()
    }
}

fn store_piece(builder: &mut CellBuilder, piece: &[u8], next: Option<Cell>) -> Result<(), CellError> {
    builder.store_raw(piece, (piece.len() * 8) as u16)?;
    match next {
        Some(cell) => builder.store_reference(cell),
        None => Ok(()),
    }
}

/// Appends one cell's bytes; returns the next cell.
fn load_piece<'a>(
    slice: &mut CellSlice<'a>,
    pieces: &mut Vec<Vec<u8>>,
) -> Result<Option<&'a tycho_types::cell::DynCell>, CellError> {
    let bits = slice.size_bits();
    if bits == 0 || !bits.is_multiple_of(8) || slice.size_refs() > 1 || pieces.len() == MAX_PIECES {
        return Err(CellError::InvalidData);
    }
    let mut buffer = [0; 128];
    pieces.push(slice.load_raw(&mut buffer, bits)?.to_vec());
    if slice.size_refs() == 1 { slice.load_reference().map(Some) } else { Ok(None) }
}

fn store_advisories(
    builder: &mut CellBuilder,
    numbers: &[[u8; 5]],
    earlier: Option<Cell>,
) -> Result<(), CellError> {
    earlier.store_into(builder, Cell::empty_context())?;
    let numbers = numbers.concat();
    builder.store_raw(&numbers, (numbers.len() * 8) as u16)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::wire::{Message, from_cell};

    fn level(isv_svn: u16) -> SvnLevel {
        SvnLevel { isv_svn, needs: needs::OUT_OF_DATE, advisories: HashBytes([3; 32]) }
    }

    fn piece(byte: u8) -> Ref<Pieces> {
        Ref::new(Pieces::new(vec![vec![byte; 114]]).unwrap()).unwrap()
    }

    fn storage() -> AttestorStorage {
        let hash = |byte| HashBytes([byte; 32]);
        let roles = RoleNames {
            platform_ca: hash(1),
            processor_ca: hash(2),
            tcb_signer: hash(3),
            pck_subject: piece(8),
            platform_points: piece(9),
            processor_points: piece(10),
        };
        let trust = Trust {
            root_x: hash(4),
            root_y: hash(5),
            root_subject: hash(6),
            root_serial: Bytes([7; 20]),
            roles: Ref::new(roles).unwrap(),
        };
        AttestorStorage::initial(trust).unwrap()
    }

    #[test]
    fn storage_with_everything_in_it_comes_back() {
        let mut storage = storage();
        let mut revoked = Dict::new();
        revoked.set(Bytes([9; 20]), true).unwrap();
        revoked.set(Bytes([0; 20]), true).unwrap();
        let crl = Crl { this_update: 1, next_update: 2, number: 3, revoked };
        let authority = Authority {
            role: Role::TcbSigner,
            x: HashBytes([1; 32]),
            y: HashBytes([2; 32]),
            not_before: 4,
            not_after: 5,
            serial: Bytes([6; 20]),
            key_id: Bytes([7; 20]),
            crl: Some(Ref::new(crl.clone()).unwrap()),
            name: piece(3),
            pck_subject: Some(piece(4)),
            points: None,
        };
        storage.authorities.set(HashBytes([1; 32]), Ref::new(authority).unwrap()).unwrap();
        storage.root_crl = Some(Ref::new(crl).unwrap());
        let life = DocumentLife {
            issue_date: 1,
            next_update: 2,
            evaluation_number: 3,
            signer_serial: Bytes([4; 20]),
            signer_not_after: 5,
        };
        let svn_levels = Ref::new(Levels(vec![level(9), level(4)])).unwrap();
        let module = TdxModule {
            mrsigner: Bytes([0; 48]),
            attributes: Bytes([0; 8]),
            attributes_mask: Bytes([0xff; 8]),
            levels: Some(svn_levels.clone()),
        };
        let tcb_level = TcbLevel {
            sgx: Bytes([1; 16]),
            pce_svn: 13,
            tdx: Bytes([2; 16]),
            needs: 0,
            advisories: HashBytes::ZERO,
        };
        let mut modules = Dict::new();
        modules.set(1u8, Ref::new(module).unwrap()).unwrap();
        let info =
            TcbInfo { life, pce_id: 0, modules, levels: Ref::new(Levels(vec![tcb_level; 20])).unwrap() };
        let identity = QeIdentity {
            life,
            miscselect: 0,
            miscselect_mask: u32::MAX,
            attributes: Bytes([0x11; 16]),
            attributes_mask: Bytes([0xfb; 16]),
            mrsigner: HashBytes([5; 32]),
            isv_prod_id: 2,
            levels: svn_levels,
        };
        let mut tcb_infos = Dict::new();
        tcb_infos.set(Bytes(*b"SIMTDX"), Ref::new(info).unwrap()).unwrap();
        let qe_identity = Some(Ref::new(identity).unwrap());
        storage.collateral = Ref::new(Collateral { qe_identity, tcb_infos }).unwrap();

        let read: AttestorStorage = from_cell(&to_cell(&storage).unwrap()).unwrap();
        assert_eq!(read, storage);
        let info = read.collateral.tcb_infos.get(Bytes(*b"SIMTDX")).unwrap().unwrap();
        assert_eq!(info.levels.0.len(), 20);
        let authority = read.authorities.get(HashBytes([1; 32])).unwrap().unwrap();
        assert_eq!(authority.crl.as_ref().unwrap().revoked.iter().count(), 2);
    }

    #[test]
    fn levels_are_chained_highest_first_and_bounded() {
        let cell = to_cell(&Levels(vec![level(9), level(4)])).unwrap();
        let mut top = cell.as_slice().unwrap();
        assert_eq!((top.load_u16().unwrap(), top.size_refs()), (9, 1));
        assert!(to_cell(&Levels::<SvnLevel>(Vec::new())).is_err());
        let most = Levels(vec![level(1); MAX_LEVELS]);
        assert_eq!(from_cell::<Levels<SvnLevel>>(&to_cell(&most).unwrap()).unwrap(), most);
        let more = to_cell(&Levels(vec![level(1); MAX_LEVELS + 1])).unwrap();
        assert!(from_cell::<Levels<SvnLevel>>(&more).is_err());
    }

    #[test]
    fn advisories_fill_cells_of_25() {
        assert_eq!(Advisories(Vec::new()).digest().unwrap(), HashBytes::ZERO);
        let full = to_cell(&Advisories(vec![*b"01234"; 25])).unwrap();
        assert_eq!((full.bit_len(), full.reference_count()), (1_001, 0));
        let two = to_cell(&Advisories(vec![*b"01234"; 26])).unwrap();
        assert_eq!((two.bit_len(), two.reference_count()), (41, 1));
        assert_eq!(two.reference(0).map(|cell| *cell.repr_hash()), Some(*full.repr_hash()));
        assert_ne!(Advisories(vec![*b"01234"; 26]).digest().unwrap(), *full.repr_hash());
    }

    #[test]
    fn pieces_are_bounded_both_ways() {
        assert_eq!(Pieces::new(Vec::new()), Err(PiecesError::Count { count: 0 }));
        assert_eq!(
            Pieces::new(vec![vec![1]; MAX_PIECES + 1]),
            Err(PiecesError::Count { count: MAX_PIECES + 1 })
        );
        assert_eq!(Pieces::new(vec![vec![1], Vec::new()]), Err(PiecesError::Length { bytes: 0 }));
        assert_eq!(Pieces::new(vec![vec![1; 128]]), Err(PiecesError::Length { bytes: 128 }));
        let most = Pieces::new(vec![vec![7; MAX_PIECE_BYTES]; MAX_PIECES]).unwrap();
        let cell = to_cell(&most).unwrap();
        assert_eq!(from_cell::<Pieces>(&cell).unwrap(), most);
        let mut longer = CellBuilder::new();
        longer.store_u8(7).unwrap();
        longer.store_reference(cell).unwrap();
        assert!(from_cell::<Pieces>(&longer.build().unwrap()).is_err());
        let mut ragged = CellBuilder::new();
        ragged.store_bit_one().unwrap();
        assert!(from_cell::<Pieces>(&ragged.build().unwrap()).is_err());
        assert!(from_cell::<Pieces>(&Cell::default()).is_err());
    }

    #[test]
    fn a_list_travels_with_its_set() {
        let mut revoked = Dict::new();
        revoked.set(Bytes([9; 20]), true).unwrap();
        let witness = P256Witness { shift: Bytes([2; 65]), slope: HashBytes([1; 32]) };
        let signature = P256Signature {
            r: HashBytes([1; 32]),
            s: HashBytes([2; 32]),
            witness: Ref::new(witness).unwrap(),
        };
        let message = PostCrl {
            query_id: 1,
            issuer: HashBytes::ZERO,
            list: Ref::new(Pieces::new(vec![vec![1, 2, 3]]).unwrap()).unwrap(),
            signature: Ref::new(signature).unwrap(),
            revoked,
        };
        assert_eq!(PostCrl::from_cell(&message.to_cell().unwrap()).unwrap(), message);
    }

    #[test]
    fn a_role_is_one_of_two() {
        for (byte, role) in [(1, Some(Role::PckIssuer)), (2, Some(Role::TcbSigner)), (0, None), (3, None)] {
            let mut cell = CellBuilder::new();
            cell.store_u8(byte).unwrap();
            assert_eq!(from_cell::<Role>(&cell.build().unwrap()).ok(), role);
        }
    }
}
