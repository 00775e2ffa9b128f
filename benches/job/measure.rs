//! Runs of a case, and the table of them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

/// What one run of a case came to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    /// Seconds that count.
    pub(crate) seconds: f64,
    /// Seconds of CPU time; 0 where the system does not say.
    pub(crate) cpu: f64,
    /// Sessions that went through; 0 where it is not about sessions.
    pub(crate) sessions: u64,
    /// The greatest resident size in bytes; 0 where it is not known.
    pub(crate) memory: u64,
    /// Bytes written; 0 where nothing is.
    pub(crate) written: u64,
}

impl Figures {
    /// The same with CPU time divided by `threads` for the seconds that count.
    pub(crate) fn by_cpu(self, threads: usize) -> Figures {
        Figures { seconds: self.cpu / threads as f64, ..self }
    }
}

/// All runs of a case.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    runs: Vec<Figures>,
}

impl Series {
    pub(crate) fn new(name: &str) -> Self {
        Series { name: name.to_owned(), runs: Vec::new() }
    }

    pub(crate) fn add(&mut self, figures: Figures) {
        self.runs.push(figures);
    }

    /// Seconds of the median run.
    pub(crate) fn seconds(&self) -> f64 {
        median(self.sorted(|run| run.seconds))
    }

    /// Sessions a second of the median run.
    pub(crate) fn rate(&self) -> f64 {
        median(self.sorted(|run| run.sessions as f64 / run.seconds))
    }

    /// Bytes of memory of the median run.
    pub(crate) fn memory(&self) -> f64 {
        median(self.sorted(|run| run.memory as f64))
    }

    /// Bytes written by the median run.
    pub(crate) fn written(&self) -> f64 {
        median(self.sorted(|run| run.written as f64))
    }

    fn sorted(&self, figure: impl Fn(&Figures) -> f64) -> Vec<f64> {
        let mut figures: Vec<f64> = self.runs.iter().map(figure).collect();
        figures.sort_unstable_by(f64::total_cmp);
        figures
    }
}

fn median(sorted: Vec<f64>) -> f64 {
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    (low + high) / 2.0
}

/// Prints a line a case: the median run, and the least and the greatest.
pub(crate) fn print_table(series: &[Series]) {
    let rate = |sessions: f64| if sessions == 0.0 { String::new() } else { thousands(sessions) };
    let mebibytes =
        |bytes: f64| if bytes == 0.0 { String::new() } else { format!("{:.0}", bytes / f64::from(1 << 20)) };
    let megabytes = |bytes: f64| if bytes == 0.0 { String::new() } else { format!("{:.1}", bytes / 1e6) };
    println!(
        "{:<44} {:>12} {:>25} {:>9} {:>19} {:>8} {:>8}",
        "case", "sessions/s", "least – greatest", "ms", "least – greatest", "MiB", "MB out"
    );
    for case in series {
        let (rates, times) =
            (case.sorted(|run| run.sessions as f64 / run.seconds), case.sorted(|run| run.seconds * 1e3));
        println!(
            "{:<44} {:>12} {:>25} {:>9.1} {:>19} {:>8} {:>8}",
            case.name,
            rate(case.rate()),
            if rates[0] == 0.0 {
                String::new()
            } else {
                format!("{} – {}", rate(rates[0]), rate(*rates.last().unwrap()))
            },
            case.seconds() * 1e3,
            format!("{:.1} – {:.1}", times[0], times.last().unwrap()),
            mebibytes(case.memory()),
            megabytes(case.written()),
        );
    }
}

/// A number with its thousands set apart.
pub(crate) fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Has the system write what earlier commands left to it, which the next one would wait for with its own.
pub(crate) fn settle() {
    // Where there is no such command, figures of what is written are less steady.
    let _ = Command::new("sync").status();
}

/// Runs a command to its end, its standard output thrown away, and times it.
pub(crate) fn run(command: &mut Command) -> Figures {
    let (started, before) = (Instant::now(), CpuTime::now());
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().expect("the program starts");
    let seconds = started.elapsed().as_secs_f64();
    let cpu = CpuTime::now().children - before.children;
    assert!(status.success(), "{command:?} ended with {status}");
    Figures { seconds, cpu, ..Figures::default() }
}

/// The CPU time of this process and of the children that it has waited for, in seconds, to a hundredth.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CpuTime {
    pub(crate) own: f64,
    pub(crate) children: f64,
}

impl CpuTime {
    /// Up to now; nothing where there is no `/proc`.
    pub(crate) fn now() -> CpuTime {
        let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return CpuTime::default() };
        // Behind the name of the program, which may hold anything, user and system time are the 12th and 13th field.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let seconds = |field: usize| fields[field].parse::<f64>().expect("a number of ticks") / 100.0;
        CpuTime { own: seconds(11) + seconds(12), children: seconds(13) + seconds(14) }
    }
}

/// The JSON that a command leaves in a file or prints as its last line.
pub(crate) fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("the figures are written")).expect("the figures are JSON")
}

/// Runs a command that prints its own figures as one line of JSON.
pub(crate) fn run_reporting(command: &mut Command) -> Result<Figures, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Value = serde_json::from_str(text.trim()).map_err(|error| format!("{error}: {text}"))?;
    Ok(Figures {
        seconds: figures["seconds"].as_f64().unwrap_or_default(),
        cpu: figures["cpu_seconds"].as_f64().unwrap_or_default(),
        sessions: figures["rows"].as_u64().unwrap_or_default(),
        memory: figures["peak_memory_bytes"].as_u64().unwrap_or_default(),
        written: figures["bytes_written"].as_u64().unwrap_or_default(),
    })
}
