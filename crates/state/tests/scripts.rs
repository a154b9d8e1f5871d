//! Golden scripts: one behaviour a file, named as a sentence.
//!
//! A script is blocks of input lines, `---`, and the output they must give. A blank line ends a block; the state goes
//! on to the next. `UPDATE_SCRIPTS=1` writes what came out instead; read it before you keep it.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod script;

use std::path::{Path, PathBuf};

use script::Runner;

#[test]
fn every_script_gives_what_it_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut scripts = Vec::new();
    find(&root, &mut scripts);
    scripts.sort();
    assert!(scripts.len() >= 20, "only {} scripts found under {}", scripts.len(), root.display());
    let is_update = std::env::var_os("UPDATE_SCRIPTS").is_some();
    let mut wrong = Vec::new();
    for path in scripts {
        let text = std::fs::read_to_string(&path).unwrap();
        let actual = run(&text);
        if is_update {
            std::fs::write(&path, actual).unwrap();
        } else if actual != text {
            wrong.push(format!("=== {}\n--- expected\n{text}\n--- came out\n{actual}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn find(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, into);
        } else {
            into.push(path);
        }
    }
}

/// The script with the output that its input gives.
fn run(text: &str) -> String {
    let mut runner = Runner::default();
    let mut blocks = Vec::new();
    for block in text.trim_end().split("\n\n") {
        let mut input: Vec<&str> = block.lines().take_while(|line| *line != "---").collect();
        if input.iter().all(|line| line.starts_with('#')) {
            blocks.push(input.join("\n"));
            continue;
        }
        let mut output: Vec<String> = Vec::new();
        for line in input.iter().filter(|line| !line.starts_with('#')) {
            output.extend(runner.line(line));
        }
        input.push("---");
        blocks.push(format!("{}\n{}", input.join("\n"), output.join("\n")));
    }
    blocks.join("\n\n") + "\n"
}
