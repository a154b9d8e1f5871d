//! `lictor completion` and `lictor man`: what shells and readers need, made from the same definitions as the parser.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::output::{Failure, Output};

/// For which shell.
#[derive(Args)]
pub(crate) struct CompletionFlags {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Where to.
#[derive(Args)]
pub(crate) struct ManFlags {
    /// The directory that gets the pages.
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

pub(super) fn completion(flags: &CompletionFlags) -> Result<Output, Failure> {
    let mut bytes = Vec::new();
    clap_complete::generate(flags.shell, &mut crate::arguments::definitions(), "lictor", &mut bytes);
    Ok(Output { bytes, ..Output::default() })
}

pub(super) fn man(flags: &ManFlags) -> Result<Output, Failure> {
    std::fs::create_dir_all(&flags.directory)
        .map_err(Failure::because(format!("cannot make {}", flags.directory.display())))?;
    let mut root = crate::arguments::definitions();
    root.build();
    let mut written = 0;
    pages(&root, "lictor", &flags.directory, &mut written)?;
    Ok(Output::line(format!("Wrote {written} pages to {}", flags.directory.display())))
}

fn pages(command: &Command, name: &str, directory: &std::path::Path, written: &mut usize) -> Result<(), Failure> {
    let mut page = Vec::new();
    let named = command.clone().name(name.to_owned()).bin_name(name.replace('-', " "));
    clap_mangen::Man::new(named).render(&mut page).map_err(Failure::because("Error making a page"))?;
    let path = directory.join(format!("{name}.1"));
    std::fs::write(&path, page).map_err(Failure::because(format!("cannot write {}", path.display())))?;
    *written += 1;
    for inner in command.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help") {
        pages(inner, &format!("{name}-{}", inner.get_name()), directory, written)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = String::from_utf8(completion(&CompletionFlags { shell }).unwrap().bytes).unwrap();
            for word in ["snapshot", "restore", "members", "http-addr", "completion"] {
                assert!(text.contains(word), "{shell} does not know {word}");
            }
        }
    }

    #[test]
    fn every_command_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        man(&ManFlags { directory: directory.path().join("man1") }).unwrap();
        for page in ["lictor", "lictor-agent", "lictor-kv-put", "lictor-snapshot-save"] {
            let text = std::fs::read_to_string(directory.path().join("man1").join(format!("{page}.1"))).unwrap();
            assert!(text.contains(".TH"), "{page}");
        }
    }
}
