//! Recordings from outside: WAV files (RIFF, Microsoft's "Multimedia Programming Interface and Data Specifications
//! 1.0") to one channel of 16 000 samples a second. Every size in a file is held against the file before it is used.

use std::fmt;

use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Samples a second that models hear.
pub const SAMPLES_PER_S: usize = 16_000;
/// The longest recording, in seconds.
pub const MAX_AUDIO_S: usize = 2 * 60 * 60;

const MAX_CHANNELS: u16 = 32;
const RATES: std::ops::RangeInclusive<u32> = 1_000..=384_000;
/// Zero crossings of the resampling filter on each side, and steps between two of them.
const CROSSINGS: usize = 32;
const STEPS: usize = 512;
/// The Kaiser window's shape: 90 dB below the pass band.
const KAISER_BETA: f64 = 9.0;
/// Where the pass band ends, as a part of the lower of the two Nyquist frequencies.
const PASS_BAND: f64 = 0.94;

/// A recording in one channel of [`SAMPLES_PER_S`]. Its `Debug` shows no sample; dropped, it is overwritten.
#[derive(Clone, PartialEq, Zeroize, ZeroizeOnDrop)]
pub struct Audio {
    samples: Vec<f32>,
}

/// A recording that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AudioError {
    /// Not a WAV file.
    #[error("client: the audio is not a RIFF/WAVE file; convert it to WAV")]
    NotWav,
    /// A part that the file should have.
    #[error("client: the audio's {0} chunk is missing or cut off; send the whole file")]
    Missing(&'static str),
    /// A field that contradicts another or is out of range.
    #[error("client: the audio's {0} is out of range or contradicts the rest of the file")]
    Field(&'static str),
    /// Samples of a kind that is not read.
    #[error("client: audio of format {format} with {bits} bits a sample is not supported; use PCM or float")]
    Unsupported {
        /// `wFormatTag`.
        format: u16,
        /// `wBitsPerSample`.
        bits: u16,
    },
    /// A sample that is no number.
    #[error("client: sample {0} of the audio is infinite or not a number")]
    NotANumber(usize),
    /// Too long.
    #[error("client: the audio lasts longer than {MAX_AUDIO_S} s; send it in parts")]
    TooLong,
}

impl fmt::Debug for Audio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audio").field("samples", &self.samples.len()).finish()
    }
}

impl Audio {
    /// Reads a WAV file: PCM of 8, 16, 24 or 32 bits or floats of 32 or 64, of 1 to 32 channels, which are averaged,
    /// at 1 000 to 384 000 samples a second.
    ///
    /// # Errors
    /// [`AudioError`], which names the field at fault.
    pub fn from_wav(file: &[u8]) -> Result<Self, AudioError> {
        let Wav { format, data } = Wav::parse(file)?;
        let frames = data.len() / usize::from(format.channels) / format.sample.bytes();
        check_length(frames, format.rate)?;
        let scale = f32::from(format.channels).recip();
        let mut mono = Vec::with_capacity(frames);
        let mut samples = data.chunks_exact(format.sample.bytes());
        for frame in 0..frames {
            let mut sum = 0.0f32;
            for sample in samples.by_ref().take(usize::from(format.channels)) {
                sum += format.sample.value(sample);
            }
            if !sum.is_finite() {
                mono.zeroize();
                return Err(AudioError::NotANumber(frame));
            }
            mono.push(sum * scale);
        }
        Self::resampled(mono, format.rate)
    }

    /// Takes samples of one channel, between −1 and 1, at `rate` a second.
    ///
    /// # Errors
    /// [`AudioError::Field`], [`AudioError::NotANumber`], [`AudioError::TooLong`].
    pub fn from_samples(samples: Vec<f32>, rate: u32) -> Result<Self, AudioError> {
        if !RATES.contains(&rate) {
            return Err(AudioError::Field("sample rate"));
        }
        check_length(samples.len(), rate)?;
        match samples.iter().position(|sample| !sample.is_finite()) {
            Some(at) => Err(AudioError::NotANumber(at)),
            None => Self::resampled(samples, rate),
        }
    }

    /// How long it lasts, in seconds.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / SAMPLES_PER_S as f64
    }

    pub(crate) fn samples(&self) -> &[f32] {
        &self.samples
    }

    fn resampled(samples: Vec<f32>, rate: u32) -> Result<Self, AudioError> {
        if rate as usize == SAMPLES_PER_S {
            return Ok(Self { samples });
        }
        let before = Self { samples };
        Ok(Self { samples: resample(&before.samples, rate) })
    }
}

/// The parts of a WAV file that matter.
struct Wav<'a> {
    format: Format,
    data: &'a [u8],
}

struct Format {
    channels: u16,
    rate: u32,
    sample: Sample,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sample {
    U8,
    I16,
    I24,
    I32,
    F32,
    F64,
}

impl<'a> Wav<'a> {
    fn parse(file: &'a [u8]) -> Result<Self, AudioError> {
        if file.get(..4) != Some(b"RIFF") || file.get(8..12) != Some(b"WAVE") {
            return Err(AudioError::NotWav);
        }
        let mut rest = &file[12..];
        let mut format = None;
        while let Some((head, after)) = rest.split_first_chunk::<8>() {
            let size = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
            let is_data = &head[..4] == b"data";
            let cut_off = AudioError::Missing(if is_data { "data" } else { "fmt" });
            let body = after.get(..size).ok_or(cut_off)?;
            if &head[..4] == b"fmt " {
                if format.is_some() {
                    return Err(AudioError::Field("second fmt chunk"));
                }
                format = Some(Format::parse(body)?);
            } else if is_data {
                let format = format.ok_or(AudioError::Missing("fmt"))?;
                let frame_bytes = usize::from(format.channels) * format.sample.bytes();
                if !body.len().is_multiple_of(frame_bytes) {
                    return Err(AudioError::Field("data size"));
                }
                return Ok(Self { format, data: body });
            }
            // Chunks begin at even places; the last one's padding may be missing.
            rest = after.get(size.saturating_add(size % 2)..).unwrap_or_default();
        }
        Err(AudioError::Missing(if format.is_some() { "data" } else { "fmt" }))
    }
}

impl Format {
    fn parse(body: &[u8]) -> Result<Self, AudioError> {
        const PCM: u16 = 1;
        const FLOAT: u16 = 3;
        const EXTENSIBLE: u16 = 0xfffe;
        let word = |at: usize| {
            let bytes = body.get(at..at + 2).ok_or(AudioError::Missing("fmt"))?;
            Ok::<_, AudioError>(u16::from_le_bytes([bytes[0], bytes[1]]))
        };
        let (mut format, channels, align, bits) = (word(0)?, word(2)?, word(12)?, word(14)?);
        let rate = u32::from(word(4)?) | u32::from(word(6)?) << 16;
        if format == EXTENSIBLE {
            // The first two bytes of the sub-format's GUID.
            format = word(24)?;
        }
        let sample = match (format, bits) {
            (PCM, 8) => Sample::U8,
            (PCM, 16) => Sample::I16,
            (PCM, 24) => Sample::I24,
            (PCM, 32) => Sample::I32,
            (FLOAT, 32) => Sample::F32,
            (FLOAT, 64) => Sample::F64,
            _ => return Err(AudioError::Unsupported { format, bits }),
        };
        if !(1..=MAX_CHANNELS).contains(&channels) {
            return Err(AudioError::Field("channel count"));
        }
        if usize::from(align) != usize::from(channels) * sample.bytes() {
            return Err(AudioError::Field("block alignment"));
        }
        if !RATES.contains(&rate) {
            return Err(AudioError::Field("sample rate"));
        }
        Ok(Self { channels, rate, sample })
    }
}

impl Sample {
    fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::I16 => 2,
            Self::I24 => 3,
            Self::I32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The sample in `bytes`, of which there are [`Sample::bytes`], between −1 and 1.
    fn value(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Self::U8, [a]) => (f32::from(*a) - 128.0) / 128.0,
            (Self::I16, [a, b]) => f32::from(i16::from_le_bytes([*a, *b])) / 32_768.0,
            (Self::I24, [a, b, c]) => i32::from_le_bytes([0, *a, *b, *c]) as f32 / 2_147_483_648.0,
            (Self::I32, [a, b, c, d]) => i32::from_le_bytes([*a, *b, *c, *d]) as f32 / 2_147_483_648.0,
            (Self::F32, [a, b, c, d]) => f32::from_le_bytes([*a, *b, *c, *d]),
            (Self::F64, bytes) => bytes.try_into().map_or(f32::NAN, |bytes| f64::from_le_bytes(bytes) as f32),
            _ => f32::NAN,
        }
    }
}

fn check_length(frames: usize, rate: u32) -> Result<(), AudioError> {
    if frames / rate as usize >= MAX_AUDIO_S { Err(AudioError::TooLong) } else { Ok(()) }
}

/// Band-limited interpolation (Smith, "Digital Audio Resampling"): a sinc under a Kaiser window.
fn resample(samples: &[f32], rate: u32) -> Vec<f32> {
    let (rate, wanted) = (u64::from(rate), SAMPLES_PER_S as u64);
    let kernel = kernel();
    let band = PASS_BAND * (wanted as f64 / rate as f64).min(1.0);
    // The filter's reach in samples of the input.
    let reach = CROSSINGS as f64 / band;
    let count = (samples.len() as u64 * wanted).div_ceil(rate);
    let at = |index: u64| {
        // Whole samples and the part after them, without rounding.
        let place = index * rate;
        let (whole, part) = (place / wanted, (place % wanted) as f64 / wanted as f64);
        let first = (whole as f64 + part - reach).ceil().max(0.0) as usize;
        let last = ((whole as f64 + part + reach).floor() as usize + 1).min(samples.len());
        let mut sum = 0.0f64;
        for (offset, sample) in samples[first.min(last)..last].iter().enumerate() {
            let distance = ((first + offset) as f64 - whole as f64 - part).abs() * band * STEPS as f64;
            let (step, between) = (distance as usize, distance.fract());
            if let Some([low, high]) = kernel.get(step..step + 2) {
                sum += f64::from(*sample) * (low + (high - low) * between);
            }
        }
        (sum * band) as f32
    };
    (0..count).map(at).collect()
}

/// One side of the filter: [`STEPS`] values between two zero crossings.
fn kernel() -> Vec<f64> {
    let last = CROSSINGS * STEPS;
    let one = |step: usize| {
        let x = step as f64 / STEPS as f64;
        let sinc =
            if step == 0 { 1.0 } else { (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x) };
        let edge = step as f64 / last as f64;
        sinc * bessel_i0(KAISER_BETA * (1.0 - edge * edge).sqrt()) / bessel_i0(KAISER_BETA)
    };
    (0..=last).map(one).chain([0.0]).collect()
}

/// The modified Bessel function of the first kind and order 0, by its power series.
fn bessel_i0(x: f64) -> f64 {
    let (mut sum, mut term) = (1.0, 1.0);
    for k in 1..60 {
        term *= (x / 2.0 / f64::from(k)).powi(2);
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::f64::consts::TAU;

    use proptest::prelude::*;

    use super::*;

    fn wav(format: u16, channels: u16, rate: u32, bits: u16, data: &[u8]) -> Vec<u8> {
        let align = channels * (bits / 8);
        let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0".to_vec();
        file.extend([format.to_le_bytes(), channels.to_le_bytes()].concat());
        file.extend([rate.to_le_bytes(), (rate * u32::from(align)).to_le_bytes()].concat());
        file.extend([align.to_le_bytes(), bits.to_le_bytes()].concat());
        file.extend(b"LIST\x03\0\0\0abc\0data");
        file.extend((data.len() as u32).to_le_bytes());
        file.extend(data);
        file
    }

    #[test]
    fn samples_of_every_kind_say_the_same() {
        for (format, bits, half) in [
            (1, 8, vec![192u8]),
            (1, 16, 16_384i16.to_le_bytes().to_vec()),
            (1, 24, vec![0, 0, 0x40]),
            (1, 32, (1i32 << 30).to_le_bytes().to_vec()),
            (3, 32, 0.5f32.to_le_bytes().to_vec()),
            (3, 64, 0.5f64.to_le_bytes().to_vec()),
        ] {
            let zero = if bits == 8 { vec![128] } else { vec![0; half.len()] };
            let data = [half.clone(), zero, half.clone(), half.clone()].concat();
            let audio = Audio::from_wav(&wav(format, 2, 16_000, bits, &data)).unwrap();
            assert_eq!(audio.samples(), [0.25, 0.5], "{bits} bits");
        }
    }

    #[test]
    fn files_that_cannot_be_are_refused_by_field() {
        let honest = wav(1, 1, 16_000, 16, &[1, 2, 3, 4]);
        let changed = |at: usize, byte: u8| {
            let mut file = honest.clone();
            file[at] = byte;
            Audio::from_wav(&file).unwrap_err()
        };
        assert_eq!(changed(0, b'X'), AudioError::NotWav);
        assert_eq!(changed(12, b'X'), AudioError::Missing("fmt"));
        assert_eq!(changed(16, 200), AudioError::Missing("fmt"));
        assert_eq!(changed(20, 7), AudioError::Unsupported { format: 7, bits: 16 });
        assert_eq!(changed(34, 12), AudioError::Unsupported { format: 1, bits: 12 });
        assert_eq!(changed(22, 0), AudioError::Field("channel count"));
        assert_eq!(changed(23, 255), AudioError::Field("channel count"));
        assert_eq!(changed(32, 3), AudioError::Field("block alignment"));
        let data = honest.len() - 8;
        assert_eq!(changed(data, 3), AudioError::Field("data size"));
        assert_eq!(changed(data + 3, 0xff), AudioError::Missing("data"));
        assert_eq!(Audio::from_wav(&wav(1, 1, 999, 16, &[])), Err(AudioError::Field("sample rate")));
        assert_eq!(Audio::from_wav(&wav(1, 1, 384_001, 16, &[])), Err(AudioError::Field("sample rate")));
        let nan = [0.5f32.to_le_bytes(), f32::NAN.to_le_bytes()].concat();
        assert_eq!(Audio::from_wav(&wav(3, 1, 16_000, 32, &nan)), Err(AudioError::NotANumber(1)));
        let long = vec![128u8; 1_000 * MAX_AUDIO_S];
        assert_eq!(Audio::from_wav(&wav(1, 1, 1_000, 8, &long)), Err(AudioError::TooLong));
        assert_eq!(Audio::from_samples(vec![0.0; 4], 0), Err(AudioError::Field("sample rate")));
        assert_eq!(Audio::from_samples(vec![f32::INFINITY], 16_000), Err(AudioError::NotANumber(0)));
    }

    #[test]
    fn tones_keep_their_pitch_and_loudness_at_any_rate() {
        let tone = |hertz: f64, rate: u32| -> Vec<f32> {
            (0..rate).map(|n| (TAU * hertz * f64::from(n) / f64::from(rate)).sin() as f32).collect()
        };
        let expected = tone(1_000.0, 16_000);
        for rate in [8_000, 11_025, 22_050, 44_100, 48_000, 96_001] {
            let heard = Audio::from_samples(tone(1_000.0, rate), rate).unwrap();
            assert_eq!(heard.samples().len(), 16_000, "{rate}");
            let middle = 1_000..15_000;
            let furthest = heard.samples()[middle.clone()].iter().zip(&expected[middle]);
            let furthest = furthest.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(furthest < 1e-4, "{rate}: {furthest}");
        }
        // What 16 000 samples a second cannot hold does not come back as another tone.
        let silent = Audio::from_samples(tone(12_000.0, 48_000), 48_000).unwrap();
        assert!(silent.samples()[1_000..15_000].iter().all(|sample| sample.abs() < 1e-3));
    }

    #[test]
    fn debug_shows_no_sample() {
        assert_eq!(format!("{:?}", Audio { samples: vec![0.25; 3] }), "Audio { samples: 3 }");
    }

    proptest! {
        #[test]
        fn no_file_panics(
            format in prop_oneof![Just(1u16), Just(3), Just(0xfffe), any::<u16>()],
            channels in 0..40u16,
            rate in any::<u32>(),
            bits in prop_oneof![Just(8u16), Just(16), Just(24), Just(32), Just(64), any::<u16>()],
            data in prop::collection::vec(any::<u8>(), 0..200),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let rate = rate % 500_000;
            let align = channels.wrapping_mul(bits / 8);
            let mut file = wav(1, 1, 16_000, 16, &data);
            file[20..22].copy_from_slice(&format.to_le_bytes());
            file[22..24].copy_from_slice(&channels.to_le_bytes());
            file[24..28].copy_from_slice(&rate.to_le_bytes());
            file[32..34].copy_from_slice(&align.to_le_bytes());
            file[34..36].copy_from_slice(&bits.to_le_bytes());
            for (at, byte) in flips {
                let at = at.index(file.len());
                file[at] = byte;
            }
            let _ = Audio::from_wav(&file);
            let _ = Audio::from_wav(&file[..cut.index(file.len())]);
        }
    }
}
