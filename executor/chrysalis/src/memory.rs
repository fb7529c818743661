//! How much memory this process may still take.

use std::fs;

/// Bytes that can be had without pushing others out: what the system has, or less where a control group says so. `None`
/// where the system does not tell.
pub(crate) fn available_bytes() -> Option<u64> {
    let system = of_meminfo(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.max")
        .zip(number("/sys/fs/cgroup/memory.current"))
        .map(|(most, used)| most.saturating_sub(used));
    Some(group.map_or(system, |group| group.min(system)))
}

fn of_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        let text = "MemTotal:       16000000 kB\nMemFree:          100 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(of_meminfo(text), Some(2_097_152));
        assert_eq!(of_meminfo("MemTotal: 5 kB\n"), None);
        assert_eq!(of_meminfo("MemAvailable: many\n"), None);
    }
}
