"""Android devices over adb: the client side, and a stand-in device that needs no phone."""
