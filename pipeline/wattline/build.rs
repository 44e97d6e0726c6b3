//! New files among those that the binary carries are seen: the macro that embeds them knows only those that were there.

fn main() {
    for folder in ["../../sql", "../../schemas", "../../data/sample", "assets"] {
        println!("cargo:rerun-if-changed={folder}");
    }
}
