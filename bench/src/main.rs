//! Figures, honest and with the command that made them. Nothing here passes or fails.

mod encoding;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("encoding") => encoding::run(),
        other => {
            eprintln!("bench: unknown bench {}; there are: encoding", other.unwrap_or("(none)"));
            std::process::exit(1);
        }
    }
}
