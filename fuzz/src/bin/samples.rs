//! Writes the valid samples that a fuzzer begins with: `samples FOLDER` makes `FOLDER/<target>/<number>`.

use pg_ark_fuzz::readers::{READERS, samples};
use std::io::Result;
use std::path::PathBuf;

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("corpus"), PathBuf::from);
    for reader in READERS {
        let folder = folder.join(reader.name);
        std::fs::create_dir_all(&folder)?;
        for (number, sample) in samples::of(reader.name).into_iter().enumerate() {
            std::fs::write(folder.join(format!("sample-{number}")), sample)?;
        }
    }
    Ok(())
}
