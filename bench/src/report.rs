//! Figures for people.

use std::path::Path;
use std::process::Command;

/// Prints what the figures stand for: the command and the machine.
pub(crate) fn heading(lictor: &Path) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    println!("command: cargo run --release -p lictor-bench -- {}", arguments.join(" "));
    let said = Command::new(lictor).arg("version").output().map(|it| it.stdout).unwrap_or_default();
    let version = String::from_utf8_lossy(&said).lines().next().unwrap_or("unknown").to_owned();
    println!("program: {} ({version})", lictor.display());
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|it| it.1));
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown");
    println!("machine: {processors} cores, {}; load average before: {load}", model.unwrap_or("unknown model"));
}

/// The median, which one slow round does not move.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The least, the median and the most, as text.
pub(crate) fn spread(values: &[f64], digits: usize) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.digits$} ({least:.digits$} to {most:.digits$})", median(values.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert_eq!(spread(&[9.0, 1.0, 2.0], 0), "2 (1 to 9)");
    }
}
