//! Black-box tests of the built binaries. `cases` is one table that runs on every flavour; a test's path
//! starts with the flavour (`kvm::…`, `nspawn::…`, `fly::…`) or with `host::` where no machine is started.

mod apps;
mod attach;
mod cases;
mod control;
mod cosign;
mod crash;
mod dependencies;
mod exports;
mod fetch;
mod file_servers;
mod host;
mod images;
mod interactive;
mod isolators;
mod jail;
mod kvm_only;
mod logs;
mod machine;
mod metadata;
mod network;
mod pulls;
mod registry;
mod services;
mod signed;
mod space;
mod store;
mod trust;
mod volumes;
mod web;

/// Runs each case on each flavour.
macro_rules! on_every_flavour {
    ($($module:ident::$case:ident),+ $(,)?) => {
        mod kvm {
            $(#[test] fn $case() { crate::$module::$case(hull_tests::Flavour::Kvm); })+
        }
        mod nspawn {
            $(#[test] fn $case() { crate::$module::$case(hull_tests::Flavour::Nspawn); })+
        }
        mod fly {
            $(#[test] fn $case() { crate::$module::$case(hull_tests::Flavour::Fly); })+
        }
    };
}

on_every_flavour!(
    apps::a_pod_is_made_of_a_manifest,
    apps::an_app_is_started_again_as_the_user_says,
    apps::an_image_may_clean_up_after_its_app,
    apps::an_image_may_prepare_its_root,
    apps::an_app_that_fails_ends_its_pod,
    apps::names_are_resolved_as_the_user_says,
    apps::one_of_several_apps_is_named,
    apps::options_belong_to_the_image_before_them,
    apps::several_apps_share_a_machine_and_not_their_roots,
    apps::the_command_line_limits_an_app,
    attach::a_log_is_as_long_as_asked,
    attach::a_prepared_pod_is_started_with_another_name_and_ipc,
    attach::a_slow_viewer_does_not_hold_the_app,
    attach::a_stream_has_readers_and_writers,
    attach::one_leaves_a_terminal_and_comes_back,
    cases::a_background_child_does_not_hold_the_pod,
    cases::a_command_that_cannot_run_is_named,
    cases::a_reader_that_leaves_ends_the_writer,
    cases::a_stubborn_app_dies_at_the_second_signal,
    cases::a_user_who_is_not_in_the_image_is_named,
    cases::an_app_that_a_signal_kills_gives_128_and_the_signal,
    cases::ctrl_c_reaches_the_app,
    cases::exit_codes_come_back,
    cases::interrupted_apps_end_in_order,
    cases::no_descriptor_of_the_host_is_inherited,
    cases::orphans_are_reaped,
    cases::other_signals_are_forwarded,
    cases::root_has_the_default_capabilities_only,
    cases::the_image_decides_what_the_command_line_leaves_open,
    cases::the_kernels_files_are_protected,
    cases::the_pod_is_listed_while_it_runs_and_after,
    cases::the_root_is_writable_and_forgotten,
    cases::the_standard_file_systems_are_there,
    cases::the_streams_are_complete_and_unmixed,
    cases::the_user_and_the_groups_are_the_images,
    cases::chroot_does_not_lead_out,
    cases::what_goes_in_comes_out,
    control::a_command_ends_with_the_pod_and_with_its_caller,
    control::a_command_joins_the_app,
    control::a_shell_enters_with_a_terminal,
    control::a_pod_is_waited_for_as_long_as_asked,
    control::a_stopped_pod_ends_in_order,
    control::a_stubborn_pod_is_stopped_by_force,
    control::two_may_stop_a_pod_at_once,
    control::who_joins_an_app_is_no_better_off,
    crash::a_kill_at_any_change_leaves_nothing_after_gc,
    crash::a_pod_of_before_the_reboot_is_garbage,
    crash::many_may_clean_up_at_once,
    crash::random_kills_leave_nothing_after_gc,
    crash::a_killed_pod_leaves_nothing_after_gc,
    crash::a_pod_killed_at_its_start_leaves_nothing_after_gc,
    crash::a_prepared_pod_runs_once,
    exports::a_running_app_becomes_an_image,
    exports::one_of_several_is_exported,
    images::every_format_gives_the_same_root,
    interactive::a_terminal_is_a_terminal,
    interactive::a_terminal_follows_its_window,
    isolators::an_unknown_isolator_is_an_error_unless_told_otherwise,
    isolators::capabilities_are_retained_and_removed,
    isolators::limits_are_set_or_the_pod_does_not_run,
    isolators::no_app_gains_privileges_where_none_may,
    isolators::protections_are_waived_by_name_only,
    isolators::resources_are_limited,
    isolators::system_calls_are_filtered,
    logs::a_detached_pod_runs_on_by_itself,
    logs::a_flood_of_output_keeps_the_last_of_it,
    logs::a_pod_with_a_terminal_has_no_log,
    logs::logs_are_followed_until_the_pod_ends,
    logs::what_an_app_wrote_is_kept_by_stream,
    network::a_configured_network_is_made_by_its_plugins,
    network::a_configured_network_takes_a_built_in_ones_place,
    network::a_killed_pod_leaves_no_network_after_gc,
    network::a_pod_is_in_the_networks_that_it_names,
    network::a_pod_is_reached_by_its_host_and_by_other_pods,
    network::a_pod_reaches_whom_its_network_leads_to,
    network::a_pod_sends_as_fast_as_it_may,
    network::a_pod_speaks_to_whom_it_may_only,
    network::a_pod_that_speaks_in_anothers_name_is_not_heard,
    network::a_port_of_one_address_leads_from_there_only,
    network::a_port_that_is_taken_is_an_error_before_anything_starts,
    network::a_published_port_leads_to_the_pod_from_everywhere,
    network::pods_that_come_and_go_together_share_nothing_and_leave_nothing,
    metadata::an_app_asks_what_it_is,
    metadata::what_one_pod_signs_another_verifies,
    registry::a_pod_runs_from_a_registry,
    services::sockets_of_the_manager_are_refused_where_an_app_expects_them,
    services::the_manager_is_told_when_the_apps_run,
    services::what_went_wrong_in_a_pod_on_its_own_is_kept,
    store::a_pod_keeps_its_image,
    volumes::a_directory_of_the_hosts_is_shared,
    volumes::a_file_is_a_volume_too,
    volumes::a_manifest_may_describe_volumes,
    volumes::a_mount_point_without_a_volume_gets_an_empty_one,
    volumes::a_read_only_volume_stays_so,
    volumes::a_root_holds_no_more_than_its_size,
    volumes::a_source_is_followed_once_and_must_be_there,
    volumes::a_volume_may_lie_in_another,
    volumes::an_empty_volume_holds_no_more_than_its_size,
    volumes::an_empty_volume_is_shared_by_the_apps_and_goes_with_the_pod,
    volumes::files_of_a_volume_are_like_any_others,
    volumes::links_in_the_image_lead_within_the_root,
    volumes::mounts_below_a_source_come_along_unless_told_otherwise,
    volumes::nothing_of_a_volume_is_left_when_the_pod_is_killed,
    volumes::of_mounts_on_one_path_the_apps_own_wins,
    volumes::the_kernels_own_files_are_no_volumes,
    volumes::volumes_of_docker_images_begin_with_the_images_files,
    volumes::what_the_host_mounts_later_is_seen,
);
