# A machine that runs the module: reports are answered, outlive restarts and a power cut, and go when their
# time is over; a live setting is taken over by the process that runs.
{ testers }:
testers.runNixOSTest {
  name = "netwatch-server";

  nodes.machine =
    { pkgs, ... }:
    {
      imports = [ ./module.nix ];

      services.netwatch-server = {
        enable = true;
        socketActivation = true;
        openFirewall = true;
        # What is secret only as long as nobody reads this file.
        environmentFile = "/etc/netwatch-server.env";
        settings.metrics_username = "prometheus";
      };
      environment.etc."netwatch-server.env".text = "METRICS_PASSWORD=scrape me\n";
      environment.systemPackages = [
        pkgs.curl
        pkgs.zstd
      ];

      system.switch.enable = true;
      specialisation = {
        live.configuration.services.netwatch-server.settings.retention_age = "60s";
        restarting.configuration.services.netwatch-server.settings.compression_level = 3;
      };
    };

  testScript = ''
    report = '{"clientId":"vm","timestamp":"2026-02-27T05:14:34.000Z","hosts":[]}'
    post = f"curl -fsS http://127.0.0.1:8080/api/v1/reports -d '{report}'"
    segments = "/var/lib/netwatch-server/reports-*.jsonl.zst"
    posted = 0


    def post_many(count, meanwhile=":"):
        global posted
        machine.succeed(
            f"for i in $(seq {count}); do {post} || exit 1; done >/dev/null & load=$!; "
            f"{meanwhile} && wait $load"
        )
        posted += count


    def wait_for_all():
        machine.wait_until_succeeds(f"test $(cat {segments} | zstd -dc | wc -l) -eq {posted}")


    def pid():
        return machine.succeed("systemctl show --property MainPID --value netwatch-server")


    def switch(specialisation):
        machine.succeed(f"/run/booted-system/specialisation/{specialisation}/bin/switch-to-configuration test")


    machine.wait_for_unit("netwatch-server.service")
    machine.wait_for_open_port(8080)

    with subtest("a report is answered"):
        answer = machine.succeed(post).strip()
        posted += 1
        assert answer == '{"status":"ok"}', answer
        machine.succeed("curl -fsS http://127.0.0.1:8080/.well-known/healthcheck")

    with subtest("metrics are for those who know the password"):
        metrics = "http://127.0.0.1:8081/metrics"
        machine.fail(f"curl -fsS {metrics}")
        text = machine.succeed(f"curl -fsS -u 'prometheus:scrape me' {metrics}")
        assert "netwatch_reports_received_total" in text, text
        assert 'driver="io_uring"' in text, text

    with subtest("the unit is hardened"):
        machine.succeed("systemd-analyze security --threshold=20 netwatch-server.service")

    with subtest("a restart refuses no connection"):
        restarts = "for i in 1 2 3; do systemctl restart netwatch-server || exit 1; done"
        post_many(300, meanwhile=f"{{ {restarts}; }}")

    with subtest("what was answered outlives a power cut"):
        post_many(100)
        machine.crash()
        machine.start()
        machine.wait_for_unit("netwatch-server.service")
        wait_for_all()

    with subtest("a reload goes on with the same process"):
        before = pid()
        machine.succeed("systemctl reload netwatch-server")
        post_many(1)
        assert pid() == before

    with subtest("a live setting is taken over by the server that runs"):
        switch("live")
        machine.wait_until_succeeds(f"! ls {segments}")
        assert pid() == before

    with subtest("another setting restarts the server"):
        switch("restarting")
        assert pid() != before
        post_many(1)
  '';
}
