//! Images made of what pods have become.

use hull_tests::hull::finish;
use hull_tests::image::{Builder, Layer};
use hull_tests::{Flavour, Hull, Image};

use crate::apps::refuses_several;

pub(crate) fn a_running_app_becomes_an_image(flavour: Flavour) {
    let hull = Hull::new();
    let script = "echo mine > /home/new; ln /home/new /home/same; ln -s new /home/link; rm /etc/not-a-program; \
                  chmod 4711 /home/new; mkdir -p /home/empty; touch /dev/shm/x /dev/x; \
                  dd if=/dev/urandom of=/home/large bs=1M count=3 2>/dev/null; md5sum /home/large; exec sleep 1000";
    let image = Builder::standard()
        .layer(
            Layer::default()
                .symlink("bin/ln", "busybox")
                .symlink("bin/rm", "busybox")
                .symlink("bin/chmod", "busybox"),
        )
        .oci();
    let mut pod = hull.spawn_command(hull.run_command(flavour, &image, &["/bin/sh", "-c", script]));
    pod.await_output("  /home/large\n");
    let id = hull.pods().remove(0);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = dir.path().join("out.aci").display().to_string();
    hull.hull(&["export", &id, &output]).success();
    hull.hull(&["export", &id, &output]).failure(&["out.aci"]);
    hull.hull(&["export", "--overwrite", &id, &output]).success();
    hull.hull(&["export", "--app=other", &id, &output]).failure(&["--app", "busybox"]);
    let look = "cat /home/link; stat -c '%a %h' /home/same; ls /etc/not-a-program /dev/x 2>/dev/null; ls /home; ls -d /home/empty";
    let run = |command: &[&str]| {
        let words = ["run", flavour.option(), "--insecure-options=image", &output];
        finish(hull.command(words.iter().chain(command))).success()
    };
    let said = run(&["--exec=/bin/sh", "--", "-c", look]);
    assert_eq!(said, "mine\n4711 2\nempty\nlarge\nlink\nnew\nsame\n/home/empty\n");
    // It runs what the pod's app ran, and would do it all again.
    let manifest = hull.hull(&["cat-manifest", &id]).success();
    assert!(manifest.contains("md5sum /home/large"), "{manifest}");
    hull.hull(&["stop", "--force", &id]).success();
    pod.wait();
    hull.hull(&["export", "--overwrite", &id, &output]).failure(&["does not run", "volume"]);
}

pub(crate) fn one_of_several_is_exported(flavour: Flavour) {
    if refuses_several(flavour) {
        return;
    }
    let hull = Hull::new();
    let image = Image::standard().reference();
    let mut command = hull.command(["run", "--detach", flavour.option()]);
    for name in ["--name=a", "--name=b"] {
        let script = "echo $AC_APP_NAME > /home/who; exec sleep 1000";
        command.args([&image, name, "--", "/bin/sh", "-c", script, "---"]);
    }
    let id = finish(command).success().trim().to_owned();
    hull.hull(&["exec", "--app=b", &id, "/bin/sh", "-c", "until [ -s /home/who ]; do :; done"]).success();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = dir.path().join("out.aci").display().to_string();
    hull.hull(&["export", &id, &output]).failure(&["--app", "a, b"]);
    hull.hull(&["export", "--app=b", &id, &output]).success();
    hull.hull(&["stop", "--wait", "--force", &id]).success();
    let words =
        ["run", flavour.option(), "--insecure-options=image", &output, "--exec=/bin/cat", "--", "/home/who"];
    assert_eq!(finish(hull.command(words)).success(), "b\n");
}
