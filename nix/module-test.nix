# What nix/module.nix takes and refuses. Building it has the package read what the module makes of settings,
# and compares the module's list of settings with the package's.
{
  lib,
  pkgs,
  runCommand,
  netwatch-server,
  nixosSystem,
}:
let
  inherit (builtins)
    attrNames
    attrValues
    concatLists
    concatMap
    deepSeq
    tryEval
    ;

  # The module alone, which is quicker to evaluate than NixOS. What it sets elsewhere goes unread.
  evaluate =
    services:
    (lib.evalModules {
      modules = [
        ./module.nix
        {
          options =
            lib.genAttrs
              [
                "assertions"
                "environment"
                "networking"
                "systemd"
                "users"
              ]
              (
                _:
                lib.mkOption {
                  type = lib.types.anything;
                  default = { };
                  description = "Of NixOS.";
                }
              );
          config.services.netwatch-server = {
            enable = true;
            package = netwatch-server;
          }
          // services;
        }
      ];
      specialArgs = { inherit pkgs; };
    });

  inherit ((evaluate { }).options.services.netwatch-server) settings;

  # Of each setting, values to take and values to refuse.
  cases =
    let
      size = least: most: {
        taken = [
          least
          most
          "65536"
          "64KiB"
          "1MB"
          "8GiB"
        ];
        refused = [
          (least - 1)
          (most + 1)
          "64 KiB"
          "64K"
          "64kib"
          "1.5MiB"
          "MiB"
          ""
          true
          [ least ]
        ];
      };
      time = least: most: {
        taken = [
          least
          most
          "90"
          "90s"
          "2m"
          "1h"
          "30d"
        ];
        refused = [
          (least - 1)
          (most + 1)
          "1w"
          "1m30s"
          "-1"
          "s"
          ""
          true
        ];
      };
      integer = least: most: {
        taken = [
          least
          most
        ];
        refused = [
          (least - 1)
          (most + 1)
          (toString least)
          1.5
        ];
      };
      words = taken: {
        inherit taken;
        refused = [
          "DURABLE"
          ""
          true
          taken
        ];
      };
      items = {
        taken = [
          [ "http://a.example" ]
          [
            "10.0.0.0/8"
            "::1"
          ]
        ];
        refused = [
          "any"
          [ ]
          [ "" ]
          [ "a,b" ]
          [ "a b" ]
          [ 1 ]
        ];
      };
      kib = 1024;
      mib = 1024 * kib;
      gib = 1024 * mib;
      tib = 1024 * gib;
    in
    {
      host = {
        taken = [
          [ "0.0.0.0" ]
          [
            "127.0.0.1"
            "::1"
          ]
        ];
        refused = [
          "0.0.0.0"
          [ ]
          [ "localhost" ]
          [ "127.0.0.1,::1" ]
          [ "127.0.0.1:80" ]
        ];
      };
      port = integer 0 65535;
      admin_addr = {
        taken = [
          "off"
          "127.0.0.1:8081"
          "[::1]:8081"
        ];
        refused = [
          "on"
          "8081"
          ":8081"
          "::1:8081"
          "127.0.0.1"
          "localhost:8081"
          8081
        ];
      };
      # Of the right type, and then refused by an assertion.
      admin_token = {
        taken = [ "0123456789abcdef" ];
        refused = [ 1 ];
      };
      metrics_username = {
        taken = [ "prometheus" ];
        refused = [
          ""
          "a:b"
          1
        ];
      };
      metrics_password = {
        taken = [ "0123456789abcdef" ];
        refused = [ 1 ];
      };
      data_dir = {
        taken = [ "/srv/reports" ];
        refused = [
          "reports"
          "${./module.nix}"
          null
        ];
      };
      ack = words [
        "durable"
        "written"
        "buffered"
      ];
      cors_origins = items;
      rate_per_ip = {
        taken = [
          "off"
          "10/s"
          "600/m"
        ];
        refused = [
          "10"
          "10/d"
          "/s"
          10
        ];
      };
      connections_per_ip = integer 1 1000000;
      trusted_proxies = items;
      flush_bytes = size kib gib;
      flush_secs = time 1 3600;
      compression_level = integer (-7) 19;
      workers = {
        taken = [
          "all"
          1
          1024
        ];
        refused = [
          "one"
          "1"
          0
          1025
        ];
      };
      shard_bytes_max = size (2 * mib) (16 * gib);
      min_free_bytes = size 0 tib;
      retention_age = time 60 (36500 * 86400);
      retention_bytes = size mib (1024 * tib);
      head_secs = time 1 300;
      body_secs = time 1 3600;
      body_rate_min = size 64 gib;
      idle_secs = time 1 3600;
      write_secs = time 1 3600;
      shutdown_secs = time 0 300;
      log_format = words [
        "auto"
        "json"
        "text"
      ];
      debug = {
        taken = [
          true
          false
        ];
        refused = [
          "true"
          1
        ];
      };
      # No setting of the server.
      prot.refused = [ 8080 ];
    };

  isTaken =
    settings:
    let
      found = (evaluate { inherit settings; }).config.services.netwatch-server.settings;
    in
    (tryEval (deepSeq found true)).success;
  mistyped = concatLists (
    lib.mapAttrsToList (
      key: case:
      let
        wrongly = what: map (value: "settings.${key} = ${builtins.toJSON value} is ${what}");
        isTakenFor = value: isTaken { ${key} = value; };
      in
      wrongly "refused" (builtins.filter (value: !isTakenFor value) (case.taken or [ ]))
      ++ wrongly "taken" (builtins.filter isTakenFor case.refused)
    ) cases
  );

  # Configurations whose types are right, and what the module says of them.
  environmentFile = "/run/secrets/netwatch-server.env";
  said = [
    {
      of = { };
      is = [ ];
    }
    {
      of.settings = {
        admin_token = "0123456789abcdef";
        metrics_password = "secret";
      };
      is = [
        "services.netwatch-server.settings.admin_token would be readable by everyone in the Nix store: set ADMIN_TOKEN in services.netwatch-server.environmentFile"
        "services.netwatch-server.settings.metrics_password would be readable by everyone in the Nix store: set METRICS_PASSWORD in services.netwatch-server.environmentFile"
      ];
    }
    {
      of.settings.metrics_username = "prometheus";
      is = [
        "services.netwatch-server.settings.metrics_username needs METRICS_PASSWORD in services.netwatch-server.environmentFile"
      ];
    }
    {
      of = {
        inherit environmentFile;
        settings.metrics_username = "prometheus";
      };
      is = [ ];
    }
    {
      of.settings.admin_addr = "[::]:8081";
      is = [
        "services.netwatch-server.settings.admin_addr is not loopback, and needs ADMIN_TOKEN in services.netwatch-server.environmentFile"
      ];
    }
    {
      of = {
        inherit environmentFile;
        settings.admin_addr = "10.0.0.1:8081";
      };
      is = [ ];
    }
    {
      of.settings.admin_addr = "[::1]:9";
      is = [ ];
    }
    {
      of.settings.port = 0;
      is = [ ];
    }
    {
      of = {
        openFirewall = true;
        settings.port = 0;
      };
      is = [
        "services.netwatch-server.settings.port is 0, any free one, which neither openFirewall nor socketActivation can name"
      ];
    }
    {
      of.settings.port = 80;
      is = [
        "services.netwatch-server.settings.port is below 1024, and needs services.netwatch-server.socketActivation"
      ];
    }
    {
      of = {
        socketActivation = true;
        settings.port = 80;
      };
      is = [ ];
    }
  ];
  missaid = concatMap (
    case:
    let
      inherit ((evaluate case.of).config) assertions;
      found = map (it: it.message) (builtins.filter (it: !it.assertion) assertions);
    in
    lib.optional (
      found != case.is
    ) "of ${builtins.toJSON case.of} the module says ${builtins.toJSON found}"
  ) said;

  # Whole systems, whose units and files are looked at.
  everything = {
    openFirewall = true;
    socketActivation = true;
    inherit environmentFile;
    user = "reports";
    group = "reports";
    settings = {
      host = [
        "127.0.0.1"
        "::1"
      ];
      port = 80;
      admin_addr = "0.0.0.0:8081";
      metrics_username = "prometheus";
      data_dir = "/srv/reports";
      ack = "written";
      cors_origins = [
        "https://a.example"
        "http://b.example:8080"
      ];
      rate_per_ip = "600/m";
      connections_per_ip = 100;
      trusted_proxies = [
        "10.0.0.0/8"
        "::1"
      ];
      flush_bytes = "1MiB";
      flush_secs = "2m";
      compression_level = -7;
      workers = 2;
      shard_bytes_max = 16777216;
      min_free_bytes = "1GB";
      retention_age = "30d";
      retention_bytes = "1TiB";
      head_secs = 5;
      body_secs = "10s";
      body_rate_min = 64;
      idle_secs = 10;
      write_secs = "1m";
      shutdown_secs = 0;
      log_format = "json";
      debug = true;
    };
  };
  systems =
    builtins.mapAttrs
      (
        _: services:
        (nixosSystem {
          modules = [
            { nixpkgs = { inherit pkgs; }; }
            ./module.nix
            {
              services.netwatch-server = {
                enable = true;
                package = netwatch-server;
              }
              // services;
            }
          ];
        }).config
      )
      {
        minimal = { };
        activated.socketActivation = true;
        inherit everything;
      };
  unset = builtins.filter (
    key: !(everything.settings ? ${key}) && key != "admin_token" && key != "metrics_password"
  ) (attrNames settings);

  units = builtins.mapAttrs (
    _: config:
    lib.filterAttrs (name: _: lib.hasPrefix "netwatch-server." name) (
      builtins.mapAttrs (_: unit: unit.text) config.systemd.units
    )
  ) systems;
  files = builtins.mapAttrs (
    _: config: config.environment.etc."netwatch-server/config.toml".source
  ) systems;

  # `name = default` as `--check-config` prints it. A directory of its own is the module's idea.
  defaults = lib.concatStringsSep "" (
    lib.mapAttrsToList (
      key: option:
      let
        text = (option.defaultText or { }).text or "`${toString option.default}`";
      in
      "${key} = ${builtins.head (builtins.match "`([^`]*)`.*" text)}\n"
    ) (removeAttrs settings [ "data_dir" ])
  );

  wrong =
    mistyped
    ++ missaid
    ++ map (key: "settings.${key} has no case") (
      builtins.filter (key: !(cases ? ${key})) (attrNames settings)
    )
    ++ map (key: "settings.${key} is not in everything") unset;
in
if wrong != [ ] then
  throw (lib.concatStringsSep "\n" wrong)
else
  runCommand "netwatch-server-module"
    {
      inherit defaults;
      passAsFile = [ "defaults" ];
      files = attrValues files;
      units = builtins.toJSON units;
      passthru = {
        inherit defaults files units;
      };
    }
    ''
      env -i ${lib.getExe netwatch-server} --config /dev/null --check-config \
        | sed -n 's/  (default)$//; /^data_dir /!p' | sort > server
      sort "$defaultsPath" | diff server -
      touch $out
    ''
