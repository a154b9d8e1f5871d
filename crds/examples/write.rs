//! Writes the generated YAML beside the crate: `cargo run -p lictor-crds --example write`.

fn main() -> std::io::Result<()> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(lictor_crds::YAML_FILE);
    std::fs::write(path, lictor_crds::yaml())
}
