{
  description = "Receives NetWatch latency reports over HTTP and keeps them as zstd-compressed JSON lines";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forEachSystem = f: lib.genAttrs systems (system: f system nixpkgs.legacyPackages.${system});
    in
    {
      packages = forEachSystem (
        system: pkgs: {
          default = pkgs.callPackage ./nix/package.nix { };
          oci-image = pkgs.callPackage ./nix/oci-image.nix {
            netwatch-server = self.packages.${system}.default;
          };
        }
      );

      overlays.default = final: _prev: {
        netwatch-server = final.callPackage ./nix/package.nix { };
      };

      nixosModules.default.imports = [ ./nix/module.nix ];

      # The package check runs the tests. Advisories need the network: the hosted workflow looks at them.
      checks = forEachSystem (
        system: pkgs:
        let
          package = self.packages.${system}.default;
          cargoCheck =
            name: tools: command:
            pkgs.stdenv.mkDerivation {
              pname = "${package.pname}-${name}";
              inherit (package) version src;
              cargoDeps = pkgs.rustPlatform.importCargoLock { lockFile = ./Cargo.lock; };
              nativeBuildInputs = [
                pkgs.cargo
                pkgs.rustc
                pkgs.rustPlatform.cargoSetupHook
              ]
              ++ tools;
              buildPhase = command;
              installPhase = "touch $out";
            };
        in
        {
          inherit package;
          devShell = self.devShells.${system}.default;
          rustfmt = cargoCheck "rustfmt" [ pkgs.rustfmt ] "cargo fmt --check";
          clippy = cargoCheck "clippy" [ pkgs.clippy ] "cargo clippy --all-targets -- -D warnings";
          docs =
            cargoCheck "docs" [ ]
              "RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --document-private-items";
          nixfmt = pkgs.runCommand "nixfmt-check" { nativeBuildInputs = [ pkgs.nixfmt ]; } ''
            find ${./flake.nix} ${./nix} -name '*.nix' -exec nixfmt --check {} +
            touch $out
          '';
          module = pkgs.callPackage ./nix/module-test.nix {
            netwatch-server = package;
            inherit (lib) nixosSystem;
          };
        }
        # Runs in a virtual machine; hosted machines with ARM have no KVM for it.
        // lib.optionalAttrs (system == "x86_64-linux") {
          vm-test = pkgs.callPackage ./nix/vm-test.nix { };
        }
      );

      devShells = forEachSystem (
        _: pkgs: {
          default = pkgs.mkShell {
            packages = [
              pkgs.cargo
              pkgs.rustc
              pkgs.clippy
              pkgs.rustfmt
              pkgs.rust-analyzer
              pkgs.cargo-deny # licences, duplicates, advisories: deny.toml
              pkgs.shellcheck # reads .ci/run
              pkgs.oha # load on a running server
              pkgs.zstd # reads sealed segments
              pkgs.jq # reads their lines
            ];
            # rust-analyzer looks the standard library up here; nixpkgs' rustc comes without its source.
            RUST_SRC_PATH = pkgs.rustPlatform.rustLibSrc;
          };
        }
      );

      formatter = forEachSystem (_: pkgs: pkgs.nixfmt-tree);
    };
}
