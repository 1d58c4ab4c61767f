"""What any program needs: folders that are whole or absent, processes, devices, text files."""
