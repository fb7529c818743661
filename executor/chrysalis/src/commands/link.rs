//! A message sent by a wallet whose words are here, or handed to a wallet app: as a link, a QR code and a TON Connect
//! request.

use std::path::PathBuf;

use anyhow::{Context, bail};
use chain::{ChainAccess, LiteserverChain, SenderTiming, Transfer, Wallet, WalletSender};
use clap::Args;
use client::link::{self, LinkError};
use contracts::StdAddr;
use qrcode::{EcLevel, QrCode};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::network::{OpenNetwork, address, read};

/// By whom.
#[derive(Args)]
pub(crate) struct ByArguments {
    /// A file with the wallet's 24 words (V5R1).
    #[arg(long, env = "CHRYSALIS_MNEMONIC", required_unless_present = "link")]
    mnemonic: Option<PathBuf>,
    /// Send nothing: print a link with its QR code and a TON Connect request for a wallet app.
    #[arg(long)]
    link: bool,
    /// With --link: the account that will send it.
    #[arg(long, requires = "link", value_name = "ADDRESS")]
    from: Option<String>,
}

impl ByArguments {
    /// Whether nothing is to be sent.
    pub(crate) fn is_link(&self) -> bool {
        self.link
    }

    /// The wallet of the words.
    pub(crate) fn wallet(&self, at: &OpenNetwork) -> anyhow::Result<Wallet> {
        let path = self.mnemonic.as_ref().context("a wallet's words are needed here: give --mnemonic")?;
        let words = Zeroizing::new(read(path, "mnemonic")?);
        Wallet::from_mnemonic(&words, at.network.id()).context("the mnemonic file is not usable")
    }

    pub(crate) fn sender(&self, at: &OpenNetwork) -> anyhow::Result<WalletSender<LiteserverChain>> {
        Ok(WalletSender::new(self.wallet(at)?, at.chain.clone(), SenderTiming::default()))
    }

    /// Who sends; nothing where a link does not say.
    pub(crate) fn sender_address(&self, at: &OpenNetwork) -> anyhow::Result<Option<StdAddr>> {
        match (&self.from, &self.mnemonic) {
            (Some(from), _) => address(from).map(Some),
            (None, Some(_)) => Ok(Some(self.wallet(at)?.address().clone())),
            (None, None) => Ok(None),
        }
    }

    /// Who sends, where the message depends on it.
    pub(crate) fn owner(&self, at: &OpenNetwork) -> anyhow::Result<StdAddr> {
        self.sender_address(at)?.context("say whose wallet will send it: give --from ADDRESS")
    }

    /// Sends it, or prints it for a wallet app. True where it was sent.
    pub(crate) async fn carry_out(
        &self,
        at: &OpenNetwork,
        transfer: Transfer,
        as_json: bool,
    ) -> anyhow::Result<bool> {
        if !self.link {
            self.sender(at)?.send(&[transfer]).await?;
            return Ok(true);
        }
        let valid_until_s = at.chain.head().await?.time_s.saturating_add(VALID_FOR_S);
        let from = self.sender_address(at)?;
        let handed = Handed::of(&transfer, from.as_ref(), valid_until_s, at.network.id())?;
        if as_json {
            println!("{:#}", handed.json());
        } else {
            handed.print();
        }
        Ok(false)
    }
}

/// How long a wallet may take to send a TON Connect request.
const VALID_FOR_S: u32 = 900;
/// Modules of the largest code that is drawn: 125 columns with its margin, which a wide terminal has.
const MAX_MODULES: usize = 117;

/// A message for a wallet app.
pub(crate) struct Handed {
    transfer: Transfer,
    link: Result<String, LinkError>,
    ton_connect: Value,
}

impl Handed {
    pub(crate) fn of(
        transfer: &Transfer,
        from: Option<&StdAddr>,
        valid_until_s: u32,
        network_id: i32,
    ) -> anyhow::Result<Self> {
        let link = link::link(transfer, network_id);
        if let Err(error @ (LinkError::StateInit | LinkError::Malformed(_))) = &link {
            bail!("{error}");
        }
        let ton_connect = link::ton_connect(std::slice::from_ref(transfer), from, valid_until_s, network_id)?;
        Ok(Self { transfer: transfer.clone(), link, ton_connect })
    }

    pub(crate) fn json(&self) -> Value {
        let mut object = json!({
            "to": self.transfer.to.to_string(),
            "value_nanoton": self.transfer.value_nanoton.to_string(),
            "link": self.link.as_ref().ok(),
            "ton_connect": self.ton_connect,
        });
        if let Err(error) = &self.link {
            object["no_link_because"] = error.to_string().into();
        }
        object
    }

    fn print(&self) {
        match &self.link {
            Ok(link) => {
                match drawing(link) {
                    Ok(drawing) => print!("{drawing}"),
                    Err(reason) => eprintln!("no QR code: {reason}"),
                }
                println!("{link}");
            }
            Err(error) => eprintln!("no link: {error}"),
        }
        println!("{}", self.ton_connect);
    }
}

/// The QR code in half blocks: two rows of modules a line, dark on light, with the margin of four modules.
pub(crate) fn drawing(text: &str) -> anyhow::Result<String> {
    let code =
        QrCode::with_error_correction_level(text, EcLevel::L).context("the link is too long for one")?;
    let width = code.width();
    if width > MAX_MODULES {
        bail!("it would be {} columns wide; a shorter prompt makes a smaller one", width + 2 * MARGIN);
    }
    let colors = code.to_colors();
    let is_dark = |x: usize, y: usize| {
        let (x, y) = (x.wrapping_sub(MARGIN), y.wrapping_sub(MARGIN));
        x < width && y < width && colors.get(y * width + x) == Some(&qrcode::Color::Dark)
    };
    let side = width + 2 * MARGIN;
    let mut drawing = String::new();
    for y in (0..side).step_by(2) {
        // On a dark terminal, what is drawn is light.
        drawing.extend((0..side).map(|x| match (is_dark(x, y), y + 1 >= side || is_dark(x, y + 1)) {
            (false, false) => '█',
            (false, true) => '▀',
            (true, false) => '▄',
            (true, true) => ' ',
        }));
        drawing.push('\n');
    }
    Ok(drawing)
}

const MARGIN: usize = 4;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use client::order;
    use contracts::{Cell, HashBytes};
    use tycho_types::cell::CellBuilder;

    use super::*;

    fn job() -> StdAddr {
        StdAddr::new(0, HashBytes([7; 32]))
    }

    /// What a camera that sees the terminal reads.
    fn seen(drawing: &str) -> String {
        let lines: Vec<Vec<char>> = drawing.lines().map(|line| line.chars().collect()).collect();
        let (width, scale) = (lines[0].len(), 3);
        let is_light = |x: usize, y: usize| {
            let half = if y.is_multiple_of(2) { ['█', '▀'] } else { ['█', '▄'] };
            lines.get(y / 2).is_none_or(|line| half.contains(&line[x]))
        };
        let side = width * scale;
        let mut picture = rqrr::PreparedImage::prepare_from_greyscale(side, side, |x, y| {
            if is_light(x / scale, y / scale) { 255 } else { 0 }
        });
        let grids = picture.detect_grids();
        assert_eq!(grids.len(), 1);
        grids[0].decode().unwrap().1
    }

    fn long_body(bytes: usize) -> Cell {
        let mut next = None;
        for at in 0..bytes.div_ceil(100) {
            let mut builder = CellBuilder::new();
            builder.store_raw(&[at as u8; 100], 800).unwrap();
            if let Some(next) = next.take() {
                builder.store_reference(next).unwrap();
            }
            next = Some(builder.build().unwrap());
        }
        next.unwrap()
    }

    #[test]
    fn a_drawn_code_leads_back_to_the_same_cells() {
        for transfer in [
            order::cancel(&job()).unwrap(),
            order::top_up(&job(), contracts::Nanoton::new(5)).unwrap(),
            Transfer::new(job(), 7, long_body(600)),
        ] {
            let handed = Handed::of(&transfer, None, 9, -239).unwrap();
            let link = handed.link.as_ref().unwrap();
            assert_eq!(&seen(&drawing(link).unwrap()), link);
            let read = link::read_link(link).unwrap();
            assert_eq!((&read.to, &read.body, read.bounce), (&transfer.to, &transfer.body, true));
            assert_eq!(read.value_nanoton, transfer.value_nanoton);
            assert_eq!(handed.json()["ton_connect"]["messages"][0]["amount"], read.value_nanoton.to_string());
        }
    }

    #[test]
    fn what_fits_no_code_or_no_link_is_a_ton_connect_request_and_says_why() {
        let wide = Transfer::new(job(), 7, long_body(1_500));
        let handed = Handed::of(&wide, None, 9, -239).unwrap();
        let refused = drawing(handed.link.as_ref().unwrap()).unwrap_err().to_string();
        assert!(refused.contains("columns wide"), "{refused}");
        let long = Transfer::new(job(), 7, long_body(4_000));
        let json = Handed::of(&long, Some(&job()), 9, -3).unwrap().json();
        assert!(json["link"].is_null());
        assert!(json["no_link_because"].as_str().unwrap().contains("2953"), "{json}");
        let (messages, until) = link::read_ton_connect(&json["ton_connect"]).unwrap();
        assert_eq!((&messages[0].body, until), (&long.body, 9));
        assert_eq!(json["ton_connect"]["from"], job().to_string());
    }
}
