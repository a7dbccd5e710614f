import sys

from nodelib.bench import main

sys.exit(main())
