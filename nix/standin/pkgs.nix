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
      args = [
        (builtins.toJSON (
          removeAttrs args [
            "meta"
            "passthru"
          ]
        ))
      ];
    }
    // builtins.deepSeq (args.meta or { }) args
    // args.passthru or { };

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
    inherit lib pkgs callPackage;

    stdenv = {
      hostPlatform = { inherit system; };
      buildPlatform.canExecute = platform: platform.system == system;
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

    # Numbers, strings, and lists of them are spelled as in JSON.
    formats.toml = _: {
      generate =
        name: values:
        drv {
          inherit name;
          text = lib.concatStringsSep "" (
            lib.mapAttrsToList (key: value: "${key} = ${builtins.toJSON value}\n") values
          );
        };
    };

    dockerTools.buildLayeredImage = builder [
      "name"
      "config"
    ];

    # The units of each node, and of what it can be switched to.
    testers.runNixOSTest =
      test:
      let
        node =
          module:
          let
            systemOf =
              more:
              (lib.nixosSystem {
                modules = [
                  { nixpkgs = { inherit pkgs; }; }
                  module
                ]
                ++ more;
              }).config;
            config = systemOf [ ];
            switched = builtins.mapAttrs (_: it: systemOf [ it.configuration ]) config.specialisation;
          in
          map (config: config.systemd.units) ([ config ] ++ builtins.attrValues switched);
      in
      drv {
        name = "vm-test-run-${test.name}";
        nodes = builtins.mapAttrs (_: node) test.nodes;
        inherit (test) testScript;
      };
  }
  // lib.genAttrs [
    "cargo"
    "cargo-deny"
    "clippy"
    "coreutils"
    "curl"
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
