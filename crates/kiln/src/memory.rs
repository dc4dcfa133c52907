//! The memory of this process as the operating system reports it, and a description of the machine.

/// The peak resident memory so far, in bytes; 0 where it is unknown.
///
/// On Linux, `getrusage` also counts the memory of the parent process, so the value is read from `/proc`.
#[cfg(target_os = "linux")]
pub fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}

/// The peak resident memory so far, in bytes; 0 where it is unknown.
#[cfg(all(unix, not(target_os = "linux")))]
pub fn peak_rss_bytes() -> u64 {
    use nix::sys::resource::{UsageWho, getrusage};
    // Apple counts bytes, the other systems KiB.
    let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| u64::try_from(usage.max_rss()).unwrap_or(0) * unit)
}

/// The peak resident memory so far, in bytes; 0 where it is unknown.
#[cfg(not(unix))]
pub fn peak_rss_bytes() -> u64 {
    0
}

/// The memory that this process can still allocate, in bytes; `None` where it is unknown.
pub fn available_bytes() -> Option<u64> {
    // A container's limit may be lower than the machine's memory.
    let limit = read_number("/sys/fs/cgroup/memory.max").zip(read_number("/sys/fs/cgroup/memory.current"));
    // Cached files count as used, but the kernel drops those that were not read lately when memory is needed.
    let cached = std::fs::read_to_string("/sys/fs/cgroup/memory.stat").ok().and_then(|stat| cached_bytes(&stat));
    let limit = limit.map(|(max, current)| max.saturating_sub(current.saturating_sub(cached.unwrap_or(0))));
    let machine = std::fs::read_to_string("/proc/meminfo").ok()?;
    let machine = machine.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let machine = machine.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024;
    Some(limit.map_or(machine, |limit| limit.min(machine)))
}

/// Kiln's version, the operating system, the processor (on Linux; elsewhere the architecture), and the number of threads.
pub fn machine() -> String {
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let processor = processor.map_or(std::env::consts::ARCH, |(_, name)| name);
    let (version, system) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS);
    format!("Kiln {version}, {system}, {processor}, {} threads", rayon::current_num_threads())
}

/// The bytes of cached files in `memory.stat` of a control group that can be dropped.
fn cached_bytes(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("inactive_file "))?.trim().parse().ok()
}

fn read_number(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn cached_files_are_found_in_the_statistics_of_a_group() {
        let stat = "anon 4096\nfile 12288\ninactive_file 8192\nactive_file 4096\n";
        assert_eq!((super::cached_bytes(stat), super::cached_bytes("anon 1\n")), (Some(8192), None));
    }

    #[cfg(unix)]
    #[test]
    fn memory_that_was_touched_is_counted() {
        let before = super::peak_rss_bytes();
        assert!(before > 0);
        let touched = std::hint::black_box(vec![1u8; before as usize + (64 << 20)]);
        assert!(super::peak_rss_bytes() > touched.len() as u64);
    }
}
