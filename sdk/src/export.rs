//! How a crate becomes a plugin: all that an author sees of the glue.

/// Exports a type that implements [`Plugin`](crate::Plugin) as the plugin of this library: a
/// native one, or a component when it is built for wasm32. Once a crate.
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ty) => {
        /// The entry of this plugin library.
        #[cfg(not(target_arch = "wasm32"))]
        #[unsafe(no_mangle)]
        pub extern "C" fn modunest_plugin_v1() -> *const $crate::abi::PluginTable {
            $crate::native::table::<$plugin>()
        }

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Exported;

            impl $crate::component::Exported for Exported {
                type Plugin = $plugin;

                fn place() -> &'static ::std::sync::OnceLock<$plugin> {
                    static PLACE: ::std::sync::OnceLock<$plugin> = ::std::sync::OnceLock::new();
                    &PLACE
                }
            }

            $crate::component::bindings::export!(Exported with_types_in $crate::component::bindings);
        };
    };
}
