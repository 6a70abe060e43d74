{ lib, rustPlatform }:
let
  manifest = (lib.importTOML ../Cargo.toml).package;
in
rustPlatform.buildRustPackage {
  pname = manifest.name;
  inherit (manifest) version;

  # What the build and the tests read, and nothing else: an edit elsewhere rebuilds nothing.
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.lock
      ../Cargo.toml
      ../LICENSE
      ../README.md
      ../benches
      ../clippy.toml
      ../deploy
      ../docs
      ../src
      ../tests
    ];
  };
  cargoLock.lockFile = ../Cargo.lock;

  # The tests run as `cargo test` runs them, with overflow checks and debug assertions.
  checkType = "debug";

  meta = {
    inherit (manifest) description;
    license = lib.licenses.mit;
    mainProgram = manifest.name;
    platforms = lib.platforms.linux;
  };
}
