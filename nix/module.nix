# services.netwatch-server: the units, a user, a directory, and a typed option for each setting of the server.
#
# The settings become one TOML file, which the server has read and accepted before the system is built.
# Secrets come from `environmentFile`, since everyone on the machine can read the Nix store.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  inherit (types)
    either
    enum
    ints
    nonEmptyListOf
    strMatching
    ;

  cfg = config.services.netwatch-server;
  name = "netwatch-server";
  toml = pkgs.formats.toml { };

  # Where the Debian package has it too, and where the server looks by itself.
  configPath = "/etc/netwatch-server/config.toml";
  stateDir = "/var/lib/netwatch-server";
  isStateDir = cfg.settings.data_dir == stateDir;

  # A setting that is null is left to the server; the manual then shows the server's default.
  setting =
    type: default: description:
    mkOption {
      type = types.nullOr type;
      default = null;
      defaultText = lib.literalMD "`${default}`, by the server";
      inherit description;
    };

  kib = 1024;
  mib = 1024 * kib;
  gib = 1024 * mib;
  tib = 1024 * gib;
  day = 86400;
  size = min: max: either (ints.between min max) (strMatching "[0-9]+([KMGT]iB|kB|[KMGT]B)?");
  time = min: max: either (ints.between min max) (strMatching "[0-9]+[smhd]?");
  # What stands between two commas.
  item = strMatching "[^,[:space:]]+";
  ipAddress = strMatching "[0-9.]+|[0-9a-fA-F]*:[0-9a-fA-F:]*:[0-9a-fA-F:.]*";

  # What the server takes over from its file at SIGHUP. A change of any other setting restarts it, so one that
  # is missing here costs a restart, and is never left without effect. metrics_username is missing, since the
  # password with it comes from the environment, which is read at a start alone.
  live = [
    "body_rate_min"
    "body_secs"
    "connections_per_ip"
    "cors_origins"
    "debug"
    "head_secs"
    "idle_secs"
    "min_free_bytes"
    "rate_per_ip"
    "retention_age"
    "retention_bytes"
    "shutdown_secs"
    "trusted_proxies"
    "write_secs"
  ];
  secrets = [
    "admin_token"
    "metrics_password"
  ];

  values = lib.filterAttrs (_: value: value != null) (removeAttrs cfg.settings secrets);
  configFile =
    pkgs.runCommand "netwatch-server.toml" { src = toml.generate "unchecked.toml" values; }
      ''
        ${lib.optionalString (pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform) ''
          env -i ${lib.optionalString (cfg.environmentFile != null) "ADMIN_TOKEN=stands-for-the-real-one"} ${
            lib.optionalString (
              cfg.settings.metrics_username != null
            ) "METRICS_PASSWORD=stands-for-the-real-one"
          } ${lib.getExe cfg.package} --config "$src" --check-config
        ''}
        cp "$src" "$out"
      '';

  isBeyondLoopback =
    address: address != null && builtins.match "off|127\\..*|\\[::1].*" address == null;
in
{
  options.services.netwatch-server = {
    enable = lib.mkEnableOption "netwatch-server, which keeps the latency reports of NetWatch pages";

    package = mkOption {
      type = types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = lib.literalMD "the package of this repository, built with the system's nixpkgs";
      description = "The package to run.";
    };

    user = mkOption {
      type = types.str;
      default = name;
      description = "User to run as. It is made if it is `netwatch-server`.";
    };

    group = mkOption {
      type = types.str;
      default = name;
      description = "Group to run as; its members may read the segments. It is made if it is `netwatch-server`.";
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to open the public port in the firewall. The admin address stays closed.";
    };

    socketActivation = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether systemd holds the public port, so that a restart of the server refuses no connection.
        When `settings.host` or `settings.port` has changed, NixOS leaves the old socket open:
        `systemctl restart netwatch-server.socket` opens the new one.
      '';
    };

    environmentFile = mkOption {
      type = types.nullOr types.externalPath;
      default = null;
      example = "/run/secrets/netwatch-server.env";
      description = ''
        File of `NAME=value` lines for the secrets `ADMIN_TOKEN` and `METRICS_PASSWORD`, readable by root
        alone. A variable wins over `settings`. The server reads it when it starts.
      '';
    };

    settings = {
      host = setting (nonEmptyListOf ipAddress) "0.0.0.0,::" "Addresses to listen on, at most 16.";
      port = mkOption {
        type = types.port;
        default = 8080;
        description = "Public port, 0 for any free one. Below 1024 it needs `socketActivation`.";
      };
      admin_addr =
        setting (strMatching "off|[0-9.]+:[0-9]+|\\[[0-9a-fA-F:.]+]:[0-9]+") "127.0.0.1:8081"
          "Address of metrics and of reading back, `off` for none. Beyond loopback it needs `ADMIN_TOKEN`.";
      admin_token =
        setting types.str "none"
          "Not to be set here, where everyone could read it: belongs into `environmentFile`.";
      metrics_username =
        setting (strMatching "[^:[:cntrl:]]{1,256}") "none"
          "User for basic authentication at /metrics. It needs `METRICS_PASSWORD`.";
      metrics_password =
        setting types.str "none"
          "Not to be set here, where everyone could read it: belongs into `environmentFile`.";
      data_dir = mkOption {
        type = types.externalPath;
        default = stateDir;
        description = "Directory that holds the segments. It is made if it is missing.";
      };
      ack = setting (enum [
        "durable"
        "written"
        "buffered"
      ]) "durable" "What a 200 promises: synced to disk, written to the kernel, or held in memory.";
      cors_origins = setting (nonEmptyListOf item) "any" "Origins whose pages may post, at most 64.";
      rate_per_ip =
        setting (strMatching "off|[0-9]+/[smh]") "off"
          "Requests for reports that one address may make, as in `600/m`.";
      connections_per_ip =
        setting (ints.between 1 1000000) "4096"
          "Connections that one address may keep open.";
      trusted_proxies =
        setting (nonEmptyListOf item) "none"
          "Networks of proxies whose `Forwarded` or `X-Forwarded-For` is believed, at most 64.";
      flush_bytes = setting (size kib gib) "10MiB" "Bytes of lines at which a segment is sealed.";
      flush_secs = setting (time 1 3600) "60s" "Time from its first line to the seal of a segment.";
      compression_level = setting (ints.between (-7) 19) "1" "Level of zstd, 0 for zstd's own default.";
      workers = setting (either (enum [ "all" ]) (
        ints.between 1 1024
      )) "all" "Worker threads, one to a CPU.";
      shard_bytes_max = setting (size (2 * mib) (
        16 * gib
      )) "64MiB" "Bytes a worker holds that are not committed yet; beyond, reports get 503.";
      min_free_bytes = setting (size 0 tib) "256MiB" "Free disk space below which reports get 503.";
      retention_age = setting (time 60 (
        36500 * day
      )) "none" "Time from its last line after which a sealed segment is removed.";
      retention_bytes = setting (size mib (
        1024 * tib
      )) "none" "Bytes of sealed segments beyond which the oldest are removed.";
      head_secs = setting (time 1 300) "10s" "Time a client has to send a request head.";
      body_secs = setting (time 1 3600) "30s" "Time a client has to send a request body.";
      body_rate_min =
        setting (size 64 gib) "16KiB"
          "Bytes that a body has to bring for each second beyond `body_secs`.";
      idle_secs = setting (time 1 3600) "60s" "Time a connection may stay open between requests.";
      write_secs = setting (time 1 3600) "30s" "Time a client has to take a response.";
      shutdown_secs = setting (time 0 300) "5s" "Time open requests have to end at shutdown.";
      log_format = setting (enum [
        "auto"
        "json"
        "text"
      ]) "auto" "Form of log lines; `auto` is JSON under systemd.";
      debug = setting types.bool "false" "Whether to log debug events as well.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions =
      map (key: {
        assertion = cfg.settings.${key} == null;
        message =
          "services.netwatch-server.settings.${key} would be readable by everyone in the Nix store: "
          + "set ${lib.toUpper key} in services.netwatch-server.environmentFile";
      }) secrets
      ++ [
        {
          assertion = cfg.settings.metrics_username == null || cfg.environmentFile != null;
          message =
            "services.netwatch-server.settings.metrics_username needs METRICS_PASSWORD in "
            + "services.netwatch-server.environmentFile";
        }
        {
          assertion = !isBeyondLoopback cfg.settings.admin_addr || cfg.environmentFile != null;
          message =
            "services.netwatch-server.settings.admin_addr is not loopback, and needs ADMIN_TOKEN in "
            + "services.netwatch-server.environmentFile";
        }
        {
          assertion = cfg.settings.port == 0 || cfg.settings.port >= 1024 || cfg.socketActivation;
          message =
            "services.netwatch-server.settings.port is below 1024, and needs "
            + "services.netwatch-server.socketActivation";
        }
        {
          assertion = cfg.settings.port != 0 || !(cfg.openFirewall || cfg.socketActivation);
          message =
            "services.netwatch-server.settings.port is 0, any free one, which neither openFirewall nor "
            + "socketActivation can name";
        }
      ];

    environment.etc."netwatch-server/config.toml".source = configFile;

    systemd.services.netwatch-server = {
      description = "NetWatch report server";
      wantedBy = [ "multi-user.target" ];
      # Addresses may come and go later, unless it has been told which.
      # Retention goes by the clock.
      wants = [
        "time-sync.target"
      ]
      ++ lib.optional (cfg.settings.host != null) "network-online.target";
      after = [
        "time-sync.target"
        (if cfg.settings.host == null then "network.target" else "network-online.target")
      ];
      requires = lib.optional cfg.socketActivation "netwatch-server.socket";
      unitConfig = {
        RequiresMountsFor = cfg.settings.data_dir;
        # A disk that is away for minutes is waited for; what fails for longer needs a human.
        StartLimitIntervalSec = "15min";
        StartLimitBurst = 60;
      };

      # Live settings are taken over while the server runs. A change of any other restarts it: after a switch,
      # what is declared is what runs.
      reloadTriggers = [ configFile ];
      restartTriggers = [ (builtins.toJSON (removeAttrs values live)) ];
      # A stop and a start apart would close the socket in between.
      stopIfChanged = false;

      # As in deploy/systemd/netwatch-server.service, which says why; `.ci/nix` compares the two.
      serviceConfig = {
        Type = "notify";
        NotifyAccess = "main";
        ExecStart = "${lib.getExe cfg.package} --config ${configPath}";
        ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
        Restart = "on-failure";
        RestartSec = "5s";
        TimeoutStartSec = "10min";
        TimeoutStopSec = "7min";
        WatchdogSec = "30s";

        EnvironmentFile = lib.optional (cfg.environmentFile != null) cfg.environmentFile;
        User = cfg.user;
        Group = cfg.group;
        UMask = "0027";

        LimitNOFILE = 1048576;
        LimitCORE = 0;

        CapabilityBoundingSet = "";
        AmbientCapabilities = "";
        NoNewPrivileges = true;
        ProtectSystem = "strict";
        ProtectHome = true;
        PrivateTmp = true;
        PrivateDevices = true;
        PrivateUsers = true;
        PrivateIPC = true;
        PrivateMounts = true;
        ProtectProc = "invisible";
        ProcSubset = "pid";
        ProtectKernelTunables = true;
        ProtectKernelModules = true;
        ProtectKernelLogs = true;
        ProtectControlGroups = true;
        ProtectClock = true;
        ProtectHostname = true;
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        RemoveIPC = true;
        KeyringMode = "private";
        RestrictAddressFamilies = "AF_INET AF_INET6 AF_UNIX";
        SystemCallArchitectures = "native";
        SystemCallFilter = [
          "@system-service"
          "~@privileged @keyring @memlock"
        ];
        SystemCallErrorNumber = "EPERM";
      }
      // (
        if isStateDir then
          {
            StateDirectory = name;
            StateDirectoryMode = "0750";
          }
        else
          { ReadWritePaths = cfg.settings.data_dir; }
      );
    };

    systemd.sockets.netwatch-server = lib.mkIf cfg.socketActivation {
      description = "Port of the NetWatch report server";
      wantedBy = [ "sockets.target" ];
      # Without an address systemd takes IPv6 and IPv4, or the one that the machine has.
      listenStreams =
        let
          port = toString cfg.settings.port;
          at = address: if lib.hasInfix ":" address then "[${address}]:${port}" else "${address}:${port}";
        in
        if cfg.settings.host == null then [ port ] else map at cfg.settings.host;
      socketConfig = {
        # With `::` as one address of several, 0.0.0.0 may be another.
        BindIPv6Only = if cfg.settings.host == null then "both" else "ipv6-only";
        ReusePort = true;
        NoDelay = true;
        Backlog = 4096;
        FileDescriptorName = "public";
      };
    };

    systemd.tmpfiles.settings.netwatch-server = lib.mkIf (!isStateDir) {
      ${cfg.settings.data_dir}.d = {
        inherit (cfg) user group;
        mode = "0750";
      };
    };

    users.users.${name} = lib.mkIf (cfg.user == name) {
      isSystemUser = true;
      inherit (cfg) group;
    };
    users.groups.${name} = lib.mkIf (cfg.group == name) { };

    networking.firewall.allowedTCPPorts = lib.optional cfg.openFirewall cfg.settings.port;
  };
}
