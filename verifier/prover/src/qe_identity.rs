//! Identity of Intel's TD quoting enclave (Intel PCS API v4, `GET /tdx/certification/v4/qe/identity`), read as
//! `contracts/qe_identity.tolk` reads it.

use contracts::attestor::{Bytes, Levels, QeIdentity, Serial, SvnLevel, needs};
use contracts::{Ref, WireError};
use tycho_types::cell::HashBytes;

use crate::json::Issue;
use crate::text::{SignedText, Text, TextError};

/// A QE identity in the one form that Intel signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QeIdentityDocument {
    pub signed: SignedText,
    pub issue: Issue,
    pub miscselect: u32,
    pub miscselect_mask: u32,
    pub attributes: Bytes<16>,
    pub attributes_mask: Bytes<16>,
    pub mrsigner: HashBytes,
    pub isv_prod_id: u16,
    /// As Intel orders them.
    pub levels: Vec<SvnLevel>,
}

impl QeIdentityDocument {
    /// Reads the signed JSON text whole. Does not check its signature.
    ///
    /// # Errors
    /// [`TextError`]
    pub fn parse(json: &str) -> Result<Self, TextError> {
        let mut text = Text::new("the QE identity", json.as_bytes());
        if !text.try_expect("{\"id\":\"TD_QE\",\"version\":2,\"issueDate\":\"") {
            text.expect("{\"id\":\"TD_QE\",\"version\":3,\"issueDate\":\"")?;
        }
        let issue_date = text.date()?;
        text.expect("\",\"nextUpdate\":\"")?;
        let next_update = text.date()?;
        text.expect("\",\"tcbEvaluationDataNumber\":")?;
        let evaluation_number = text.number(u32::MAX)?;
        text.expect(",\"miscselect\":\"")?;
        let miscselect = u32::from_be_bytes(text.hex()?);
        text.expect("\",\"miscselectMask\":\"")?;
        let miscselect_mask = u32::from_be_bytes(text.hex()?);
        text.expect("\",\"attributes\":\"")?;
        let attributes = Bytes(text.hex()?);
        text.expect("\",\"attributesMask\":\"")?;
        let attributes_mask = Bytes(text.hex()?);
        text.expect("\",\"mrsigner\":\"")?;
        let mut mrsigner = HashBytes::ZERO;
        for part in mrsigner.0.as_chunks_mut::<16>().0 {
            *part = text.hex()?;
        }
        text.expect("\",\"isvprodid\":")?;
        let isv_prod_id = text.number(0xffff)? as u16;
        text.expect(",\"tcbLevels\":[")?;
        let levels = text.svn_levels(0xffff, needs::OUT_OF_DATE | needs::CONFIGURATION)?;
        text.expect("}")?;
        Ok(Self {
            signed: text.finish()?,
            issue: Issue { issue_date, next_update, evaluation_number },
            miscselect,
            miscselect_mask,
            attributes,
            attributes_mask,
            mrsigner,
            isv_prod_id,
            levels,
        })
    }

    /// What the contract keeps of it. `signer_not_after` is Unix time.
    ///
    /// # Errors
    /// [`WireError`]: never for what [`Self::parse`] returned.
    pub fn to_storage(&self, signer_serial: Serial, signer_not_after: u32) -> Result<QeIdentity, WireError> {
        let Self { miscselect, miscselect_mask, attributes, attributes_mask, mrsigner, isv_prod_id, .. } =
            *self;
        Ok(QeIdentity {
            life: self.issue.life(signer_serial, signer_not_after),
            miscselect,
            miscselect_mask,
            attributes,
            attributes_mask,
            mrsigner,
            isv_prod_id,
            levels: Ref::new(Levels(self.levels.clone()))?,
        })
    }
}
