//! The one place that knows which backends there are.

use std::fmt;
use std::str::FromStr;

use burn_flex::{Flex, FlexDevice};
use burn_tensor::backend::Backend;

use crate::decoder::{Decoder, Multiply};
use crate::error::LoadError;
use crate::host::HostDecoder;
use crate::model::Model;
use crate::shape::Shape;
use crate::weights::Weights;

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Device {
    /// The processor: burn's portable backend with this crate's kernels.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by its number. Needs feature `cuda` and, at run time, the driver and NVRTC.
    Cuda(usize),
    /// The first GPU that WebGPU finds. Needs feature `wgpu`.
    Wgpu,
}

impl Device {
    /// Whether this build has it.
    pub fn is_built(self) -> bool {
        match self {
            Self::Cpu => true,
            Self::Cuda(_) => cfg!(feature = "cuda"),
            Self::Wgpu => cfg!(feature = "wgpu"),
        }
    }

    /// How it multiplies unless told otherwise.
    pub fn multiply(self) -> Multiply {
        match self {
            Self::Cpu => Multiply::Stored,
            Self::Cuda(_) | Self::Wgpu => Multiply::Backend,
        }
    }
}

impl FromStr for Device {
    type Err = LoadError;

    /// `cpu`, `cuda`, `cuda:1`, `wgpu`.
    fn from_str(name: &str) -> Result<Self, LoadError> {
        let unknown = || LoadError::UnknownDevice { name: name.to_owned() };
        match name.split_once(':') {
            None if name == "cpu" => Ok(Self::Cpu),
            None if name == "cuda" => Ok(Self::Cuda(0)),
            None if name == "wgpu" => Ok(Self::Wgpu),
            Some(("cuda", number)) => number.parse().map(Self::Cuda).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Wgpu => f.write_str("wgpu"),
        }
    }
}

/// Puts a model on `device`.
///
/// # Errors
/// [`LoadError::Device`] where the build or the machine lacks it.
pub(crate) fn place(
    shape: Shape,
    weights: Weights,
    device: Device,
    multiply: Multiply,
) -> Result<Box<dyn Model>, LoadError> {
    match (device, multiply) {
        (Device::Cpu, Multiply::Stored) => return Ok(Box::new(HostDecoder::new(shape, weights))),
        (_, Multiply::Backend) => {}
        (_, Multiply::Stored) => {
            return Err(LoadError::Device {
                device: device.to_string(),
                reason: "only the processor multiplies weights as they are stored".into(),
            });
        }
    }
    match device {
        Device::Cpu => Ok(Box::new(Decoder::<Flex>::new(shape, weights, FlexDevice))),
        #[cfg(feature = "cuda")]
        Device::Cuda(number) => {
            on_gpu::<burn_cuda::Cuda>(shape, weights, device, burn_cuda::CudaDevice::new(number))
        }
        #[cfg(feature = "wgpu")]
        Device::Wgpu => on_gpu::<burn_wgpu::Wgpu>(shape, weights, device, burn_wgpu::WgpuDevice::default()),
        #[allow(unreachable_patterns, reason = "which patterns are left depends on the features")]
        _ => Err(LoadError::Device {
            device: device.to_string(),
            reason: "this build leaves it out; build with the feature of its name".into(),
        }),
    }
}

/// What can be put on any backend.
pub(crate) trait Build {
    /// What it becomes there.
    type Model;

    fn build<B: Backend>(self, device: B::Device) -> Self::Model;
}

/// Puts `weights` on `device`.
///
/// # Errors
/// [`LoadError::Device`] where the build or the machine lacks it.
pub(crate) fn build<W: Build>(weights: W, device: Device) -> Result<W::Model, LoadError> {
    match device {
        Device::Cpu => Ok(weights.build::<Flex>(FlexDevice)),
        #[cfg(feature = "cuda")]
        Device::Cuda(number) => {
            let on = burn_cuda::CudaDevice::new(number);
            probe::<burn_cuda::Cuda>(device, &on)?;
            Ok(weights.build::<burn_cuda::Cuda>(on))
        }
        #[cfg(feature = "wgpu")]
        Device::Wgpu => {
            let on = burn_wgpu::WgpuDevice::default();
            probe::<burn_wgpu::Wgpu>(device, &on)?;
            Ok(weights.build::<burn_wgpu::Wgpu>(on))
        }
        #[allow(unreachable_patterns, reason = "which patterns are left depends on the features")]
        _ => Err(LoadError::Device {
            device: device.to_string(),
            reason: "this build leaves it out; build with the feature of its name".into(),
        }),
    }
}

#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn on_gpu<B: Backend>(
    shape: Shape,
    weights: Weights,
    device: Device,
    on: B::Device,
) -> Result<Box<dyn Model>, LoadError>
where
    Decoder<B>: Send + Sync,
{
    probe::<B>(device, &on)?;
    Ok(Box::new(Decoder::<B>::new(shape, weights, on)))
}

#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn probe<B: Backend>(device: Device, on: &B::Device) -> Result<(), LoadError> {
    // CubeCL panics where there is no driver, and reports it nowhere else.
    let probe = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let one = burn_tensor::Tensor::<B, 1>::from_floats([1.0, 2.0], on);
        (one.clone() + one).into_data().convert::<f32>().into_vec::<f32>().ok()
    }));
    match probe {
        Ok(Some(sum)) if sum == [2.0, 4.0] => Ok(()),
        _ => Err(LoadError::Device {
            device: device.to_string(),
            reason: "this machine has no such device, or lacks its driver".into(),
        }),
    }
}
