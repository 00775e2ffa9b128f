//! The cases: what is run on what.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::Options;
use crate::files::Files;
use crate::measure::{Figures, json_file, run, run_reporting};
use crate::peers::Peer;
use crate::stock::Stock;

/// Something that is measured.
pub(crate) struct Case {
    pub(crate) name: String,
    /// How often it runs at most: some take long, and only their memory is asked for.
    pub(crate) most_runs: usize,
    work: Box<dyn Fn() -> Figures>,
}

impl Case {
    fn new(name: impl Into<String>, work: impl Fn() -> Figures + 'static) -> Case {
        Case { name: name.into(), most_runs: usize::MAX, work: Box::new(work) }
    }

    fn at_most(self, most_runs: usize) -> Case {
        Case { most_runs, ..self }
    }

    /// Runs it once.
    pub(crate) fn measure(&self) -> Figures {
        (self.work)()
    }
}

/// Names of cases that goals refer to.
pub(crate) const DECODE: &str = "DataFusion: decode wide";
pub(crate) const DECODE_STYLE_ITEMS: &str = "DataFusion: decode the 48 style columns";
pub(crate) const DECODE_RANKS: &str = "DataFusion: decode the 80 rank columns";
pub(crate) const REWRITE: &str = "DataFusion: rewrite the scored rows";
pub(crate) const READ_CSV: &str = "DataFusion: read CSV";
pub(crate) const READ_NDJSON: &str = "DataFusion: read NDJSON";
pub(crate) const WIDE: &str = "job: wide to Parquet";
pub(crate) const WIDE_ONE_THREAD: &str = "job: wide to Parquet, one thread";
pub(crate) const PACKED: &str = "job: packed to Parquet";
pub(crate) const STYLE: &str = "SQL: styles counted, without contexts";
pub(crate) const STYLE_OF_ALL: &str = "SQL: styles counted";
pub(crate) const TO_NDJSON: &str = "job: wide to NDJSON";
pub(crate) const FROM_CSV: &str = "job: CSV to Parquet";
pub(crate) const FROM_NDJSON: &str = "job: NDJSON to Parquet";
pub(crate) const FIRST_ROW: &str = "first row on standard output";
pub(crate) const FIRST_ROW_PUBLISHED: &str = "first row on standard output, published norms alone";
pub(crate) const HELP: &str = "--help";
pub(crate) const MEMORY_TEN: &str = "memory: ten times the rows";
pub(crate) const TEN_ONE_THREAD: &str = "job: ten times the rows, one thread";
pub(crate) const MEMORY_HUNDRED: &str = "memory: a hundred times the rows";
pub(crate) const CONSTRAINED: &str = "memory: memory-constrained";
pub(crate) const CONSTRAINED_TEN: &str = "memory: memory-constrained, ten times the rows";

/// Every case that the options ask for, in the order of the table.
pub(crate) fn all(options: &Options, files: &Files) -> Vec<Case> {
    let of_wall_time = [FIRST_ROW, FIRST_ROW_PUBLISHED, HELP, WIDE_ONE_THREAD, TEN_ONE_THREAD];
    let needs_wall = |case: &Case| of_wall_time.iter().any(|name| case.name.ends_with(name));
    let wanted = |case: &Case| {
        (options.only.is_empty() || options.only.iter().any(|word| case.name.contains(word)))
            && !(options.cpu && needs_wall(case))
    };
    let mut cases = stock_cases(options.threads, files);
    let programs = std::iter::once((String::new(), files.program.clone()));
    let other = options.program.iter().map(|program| ("other: ".to_owned(), program.clone()));
    for (prefix, program) in programs.chain(other) {
        let job = |input: &(&'static str, &'static str, u64)| Job::new(&program, files, options.threads, *input);
        let (wide, packed) = (job(&("wide", "parquet", 1)), job(&("packed", "parquet", 1)));
        let own = [
            wide.clone().case(WIDE),
            wide.clone().threads(1).case(WIDE_ONE_THREAD),
            packed.case(PACKED),
            count_styles(STYLE, wide.clone(), ", contexts => false"),
            count_styles(STYLE_OF_ALL, wide.clone(), ""),
            wide.clone().into_stdout().case(TO_NDJSON),
            job(&("wide", "csv", 1)).case(FROM_CSV),
            job(&("wide", "ndjson", 1)).case(FROM_NDJSON),
            first_row(FIRST_ROW, wide.clone()),
            first_row(FIRST_ROW_PUBLISHED, wide.clone().without_group_norms()),
            help(program.clone()),
            job(&("wide", "parquet", 10)).case(MEMORY_TEN).at_most(2),
            job(&("wide", "parquet", 10)).threads(1).case(TEN_ONE_THREAD).at_most(2),
            wide.args(&["--profile", "memory-constrained"]).without_threads().case(CONSTRAINED).at_most(2),
            job(&("wide", "parquet", 10))
                .args(&["--profile", "memory-constrained"])
                .without_threads()
                .case(CONSTRAINED_TEN)
                .at_most(1),
        ];
        cases.extend(own.into_iter().map(|case| Case { name: format!("{prefix}{}", case.name), ..case }));
        if options.long {
            let case = job(&("wide", "parquet", 100)).case(MEMORY_HUNDRED).at_most(1);
            cases.push(Case { name: format!("{prefix}{}", case.name), ..case });
        }
    }
    if options.peers {
        cases.extend(Peer::all(files).into_iter().map(|peer| {
            let threads = options.threads;
            Case::new(peer.name(), move || peer.score(threads))
        }));
    }
    cases.retain(wanted);
    cases
}

fn stock_cases(threads: usize, files: &Files) -> Vec<Case> {
    let read = |name, input: (&'static str, &'static str, u64), columns: Vec<String>| {
        let files = files.clone();
        Case::new(name, move || {
            let (layout, extension, times) = input;
            let (input, columns) = (files.sessions(layout, extension, times), columns.clone());
            run_reporting(&mut Stock::Read { input, threads, columns }.command()).expect("the baseline runs")
        })
    };
    let files = files.clone();
    let rewrite = {
        let files = files.clone();
        move || {
            let (input, output) = (files.scored(), files.output("rewritten.parquet"));
            run_reporting(&mut Stock::Rewrite { input, threads, output }.command()).expect("the baseline runs")
        }
    };
    let style_items: Vec<String> = rank_columns("q", 12);
    let ranks = style_items.iter().cloned().chain(rank_columns("ctx", 8)).collect();
    vec![
        read(DECODE, ("wide", "parquet", 1), Vec::new()),
        read(DECODE_STYLE_ITEMS, ("wide", "parquet", 1), style_items),
        read(DECODE_RANKS, ("wide", "parquet", 1), ranks),
        Case::new(REWRITE, rewrite),
        read(READ_CSV, ("wide", "csv", 1), Vec::new()),
        read(READ_NDJSON, ("wide", "ndjson", 1), Vec::new()),
    ]
}

fn rank_columns(prefix: &str, items: usize) -> Vec<String> {
    let modes = ["ce", "ro", "ac", "ae"];
    (1..=items).flat_map(|item| modes.map(|mode| format!("{prefix}{item:02}_{mode}"))).collect()
}

/// A run of `normstream score`.
#[derive(Debug, Clone)]
struct Job {
    program: PathBuf,
    files: Files,
    threads: Option<usize>,
    input: (&'static str, &'static str, u64),
    to_stdout: bool,
    group_norms: bool,
    args: Vec<&'static str>,
}

impl Job {
    fn new(program: &Path, files: &Files, threads: usize, input: (&'static str, &'static str, u64)) -> Job {
        let (program, files) = (program.to_owned(), files.clone());
        Job { program, files, threads: Some(threads), input, to_stdout: false, group_norms: true, args: Vec::new() }
    }

    fn threads(self, threads: usize) -> Job {
        Job { threads: Some(threads), ..self }
    }

    fn without_threads(self) -> Job {
        Job { threads: None, ..self }
    }

    fn into_stdout(self) -> Job {
        Job { to_stdout: true, ..self }
    }

    fn without_group_norms(self) -> Job {
        Job { group_norms: false, ..self }
    }

    fn args(self, args: &[&'static str]) -> Job {
        Job { args: args.to_vec(), ..self }
    }

    fn case(self, name: &str) -> Case {
        Case::new(name, move || self.measure())
    }

    fn command(&self) -> Command {
        let (layout, extension, times) = self.input;
        let mut command = Command::new(&self.program);
        for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("NORMSTREAM_")) {
            command.env_remove(key);
        }
        command.arg("score").arg(self.files.sessions(layout, extension, times));
        if self.group_norms {
            command.arg("--norms").arg(self.files.norms());
        }
        if let Some(threads) = self.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        command.args(&self.args).args(["--progress", "off", "--overwrite", "--to"]);
        if self.to_stdout {
            command.arg("-")
        } else {
            command.arg(self.files.output("job.parquet"))
        };
        command
    }

    fn measure(&self) -> Figures {
        let stats = self.files.output("stats.json");
        let mut command = self.command();
        let spent = run(command.arg("--stats").arg(&stats));
        let stats = json_file(&stats);
        let number = |key: &str| stats[key].as_u64().unwrap_or_default();
        let (sessions, memory) = (number("sessions"), number("peak_memory_bytes"));
        assert_eq!(sessions, self.files.session_count(self.input.2), "every session went through");
        Figures { sessions, memory, written: number("bytes_written"), ..spent }
    }
}

/// A query for the number of sessions of each style.
fn count_styles(name: &str, job: Job, arguments: &'static str) -> Case {
    Case::new(name, move || {
        let (layout, extension, times) = job.input;
        let input = job.files.sessions(layout, extension, times);
        let sql = format!("SELECT style, count(*) FROM score('{}'{arguments}) GROUP BY style", input.display());
        let mut command = Command::new(&job.program);
        command.args(["sql", "-c", &sql]);
        if let Some(threads) = job.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        Figures { sessions: job.files.session_count(times), ..run(&mut command) }
    })
}

/// From the start of the program to the first line that a reader of its output has.
fn first_row(name: &str, job: Job) -> Case {
    let job = job.into_stdout();
    Case::new(name, move || {
        let mut command = job.command();
        let started = Instant::now();
        let mut program = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the program starts");
        let mut lines = BufReader::new(program.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).expect("the program writes");
        let seconds = started.elapsed().as_secs_f64();
        assert!(line.starts_with('{'), "the first line is a session, not {line:?}");
        // A pipe that nobody reads any more ends the program, and that is not an error.
        drop(lines);
        assert!(program.wait().unwrap().success());
        Figures { seconds, ..Figures::default() }
    })
}

fn help(program: PathBuf) -> Case {
    Case::new(HELP, move || run(Command::new(&program).arg("--help")))
}
