# The packages and builders of nixpkgs that the flake uses. A derivation here can be evaluated, not built.
{ lib, system }:
let
  inherit (builtins) attrNames filter functionArgs;

  drv =
    args:
    derivation {
      name = args.name or "${args.pname}-${args.version}";
      inherit system;
      builder = "/bin/sh";
      # Every argument is forced, so that an undefined name in one is found.
      args = [ (builtins.toJSON (removeAttrs args [ "meta" ])) ];
    }
    // builtins.deepSeq (args.meta or { }) args;

  # `drv` for a builder that cannot do without `names`.
  builder =
    names: args:
    let
      missing = filter (name: !(args ? ${name})) names;
    in
    if missing == [ ] then drv args else throw "missing arguments: ${toString missing}";

  tool =
    name:
    drv {
      pname = name;
      version = "0";
    };

  callPackage =
    path: overrides:
    let
      f = import path;
      wanted = functionArgs f;
      given = builtins.intersectAttrs wanted pkgs // overrides;
      missing = filter (name: !(given ? ${name}) && !wanted.${name}) (attrNames wanted);
    in
    if missing == [ ] then f given else throw "callPackage: no ${toString missing} in the stand-in";

  pkgs = {
    inherit lib callPackage;

    stdenv = {
      hostPlatform = { inherit system; };
      mkDerivation = builder [
        "pname"
        "version"
        "src"
      ];
    };

    rustPlatform = {
      buildRustPackage = builder [
        "pname"
        "version"
        "src"
        "cargoLock"
      ];
      importCargoLock =
        { lockFile }:
        drv {
          name = "cargo-vendor-dir";
          lock = lib.importTOML lockFile;
        };
      cargoSetupHook = tool "cargo-setup-hook";
      rustLibSrc = tool "rust-lib-src";
    };

    mkShell = args: drv ({ name = "nix-shell"; } // args);

    runCommand =
      name: env: script:
      drv (env // { inherit name script; });
  }
  // lib.genAttrs [
    "cargo"
    "cargo-deny"
    "clippy"
    "jq"
    "nixfmt"
    "nixfmt-tree"
    "oha"
    "rust-analyzer"
    "rustc"
    "rustfmt"
    "shellcheck"
    "zstd"
  ] tool;
in
pkgs
